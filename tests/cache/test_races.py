"""Several processes at one cache: what one does between two steps of another is neither lost nor contradicted."""

from llm_training.cache.pins import check_pin, pin_all
from llm_training.cache.store import ChunkStore
from llm_training.cache.view import PackedView, build_view


def part(cache, count, chunks):
    """Build so many chunks of a plan of ``count``, and open the store as it is then."""
    built = []

    def is_enough():
        built.append(True)
        return len(built) == chunks

    cache.build(count, should_stop=is_enough)
    return ChunkStore.open(cache.directory)


def test_row_plans_of_chunks_that_an_older_look_at_the_store_does_not_know_are_kept(cache):
    older = part(cache, 10, 3)
    cache.build(10)
    view = cache.view(32)
    pin = pin_all(view)
    assert sorted(build_view(cache.root, older, 32).records) == [0, 1, 2]
    check_pin(PackedView.open(view.directory), pin)
    assert sorted(build_view(cache.root, older, 64).records) == [0, 1, 2]
    assert sorted(PackedView.open(view.directory.parent.parent / "64" / view.directory.name).records) == [0, 1, 2]


def test_row_plans_of_chunks_that_are_gone_go_too(cache):
    cache.build(5)
    cache.view(32)
    cache.build(3, mode="force_rebuild")
    assert sorted(cache.view(32).records) == [0, 1, 2]
