import json

import pytest
from benchmarks.harness import Figure, Result, alternate, missing, ratio_of_medians, run_benchmark, seconds_of, summarize, table_of
from benchmarks.machine import machine_facts

from benchmarks import __main__ as all_benchmarks
from benchmarks import startup, time_to_loss


def test_variants_take_turns_and_the_warm_up_is_not_counted():
    calls = []
    variants = {name: lambda name=name: calls.append(name) or float(len(calls)) for name in "AB"}
    samples = alternate(variants, 2, warm_up=1)
    assert "".join(calls) == "ABABAB"
    assert samples == {"A": [3.0, 5.0], "B": [4.0, 6.0]}


def test_medians_and_their_ratio():
    assert ratio_of_medians({"a": [1, 9, 3], "b": [2, 2, 2]}, "a", "b") == 1.5
    assert summarize([3.0, 1.0, 2.000001]) == {"median": 2.0, "least": 1.0, "most": 3.0, "samples": [3.0, 1.0, 2.0]}
    assert seconds_of(lambda: None) < 1


@pytest.mark.parametrize(
    ("value", "bar", "is_ceiling", "passes"),
    [(3.1, 3.0, False, True), (2.9, 3.0, False, False), (0.4, 0.5, True, True), (0.6, 0.5, True, False), (1.0, None, False, None)],
)
def test_a_bar_is_a_least_or_a_most(value, bar, is_ceiling, passes):
    assert Figure(what="x", value=value, unit="s", bar=bar, is_ceiling=is_ceiling).passes is passes


def test_the_table_is_aligned():
    figures = [
        Figure(what="long name", value=12_345.678, unit="tok/s", bar=3.0),
        Figure(what="x", value=0.5, unit="s", bar=0.4, is_ceiling=True),
    ]
    assert table_of([figure.as_json() for figure in figures]) == [
        "long name  1.235e+04  tok/s  at least 3   pass",
        "x                0.5  s      at most 0.4  FAIL",
    ]


def test_a_run_writes_its_result_with_the_facts_of_the_machine(tmp_path, capsys):
    output = tmp_path / "deep" / "x.json"
    result = Result(figures=[Figure(what="speed", value=1.0, unit="s")], remarks=["a remark"])
    assert run_benchmark("x", lambda options: result, "what it is", arguments=["--output", str(output)], has_ceiling=False) == 0
    document = json.loads(output.read_text(), parse_constant=pytest.fail)
    assert document["figures"][0]["what"] == "speed"
    assert document["matmul_ceiling_tflops"] is None
    assert {"date", "commit", "processor", "usable_cores", "memory_gb", "versions", "load_average_1min"} <= set(document["machine"])
    assert "a remark" in capsys.readouterr().out


def test_quick_runs_keep_no_result(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.harness.RESULTS", tmp_path)
    run_benchmark("x", lambda options: Result(), "", arguments=["--quick"], has_ceiling=False)
    assert list(tmp_path.iterdir()) == []


def test_machine_facts_are_plain_json():
    facts = machine_facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["versions"]["torch"]


def test_what_is_missing_is_one_line_and_exit_code_1(capsys, tmp_path):
    assert missing("no x", "get x") == 1
    assert capsys.readouterr().err == "error: no x; get x\n"
    assert time_to_loss.main(["--peers", str(tmp_path)]) == 1
    assert "git clone" in capsys.readouterr().err


def test_all_benchmarks_exist_and_fit_into_fifteen_minutes(repository):
    assert all((repository / "benchmarks" / f"{name}.py").is_file() for name in all_benchmarks.BENCHMARKS)
    assert all_benchmarks.LIMIT_SECONDS <= 15 * 60


def test_startup_measures_fresh_processes(tmp_path):
    output = tmp_path / "startup.json"
    assert run_benchmark("startup", startup.measure, "", arguments=["--quick", "--output", str(output)], has_ceiling=False) == 0
    figures = json.loads(output.read_text())["figures"]
    assert [figure["bar"] for figure in figures] == [0.5, 0.2, None]
