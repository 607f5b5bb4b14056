"""The ``data`` section: where documents come from and how they are split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llm_training.config.section import Section

Engine = Literal["local", "ray"]


class DataConfig(Section):
    """Sources of text. Files named train, valid, validation, val, dev or test define the split; else a document hash does."""

    sources: Annotated[
        list[str],
        Field(
            min_length=1,
            description="file, folder, glob, stdlib:, hf:NAME[:CONFIG][@SPLIT], URI, connector:; each may end in #weight=W,max_epochs=E",
        ),
    ] = ["stdlib:"]  # noqa: RUF012
    validation_sources: Annotated[list[str], Field(description="paths or URIs of held-out text; empty: split off the sources")] = []  # noqa: RUF012
    text_field: Annotated[str, Field(min_length=1, description="key of the text in JSON documents, column of it in tables")] = "text"
    validation_fraction: Annotated[float, Field(ge=0, le=0.5, description="share of documents held out, fraction")] = 0.05
    skip_bad: Annotated[bool, Field(description="skip and count undecodable or malformed documents instead of stopping")] = True
    replace_bad_bytes: Annotated[
        bool, Field(description="bytes that are no UTF-8 become U+FFFD and are counted, instead of the document being bad")
    ] = False
    max_bad_fraction: Annotated[float, Field(ge=0, le=1, description="share of bad documents above which the run stops, fraction")] = 0.01
    max_document_bytes: Annotated[int, Field(ge=1_000, le=2**31 - 1, description="longest document held in memory at once, bytes")] = (
        32_000_000
    )
    num_samples: Annotated[
        int | None,
        Field(ge=1, le=2**40, description="documents taken at most, in order; files named for validation or test do not count; empty: all"),
    ] = None
    cleaning: Annotated[
        list[str],
        Field(
            min_length=1,
            description="steps: auto (all in llm-prepare-data, none elsewhere), all, none, or of normalise, html, language, gopher, "
            "repetition, c4, fineweb, pii, duplicates, near_duplicates",
        ),
    ] = ["auto"]  # noqa: RUF012
    language: Annotated[list[str], Field(min_length=1, description="languages kept by the step language, ISO 639-1 codes")] = ["en"]  # noqa: RUF012
    min_length: Annotated[int, Field(ge=0, description="shortest text kept, characters")] = 0
    min_quality: Annotated[float, Field(ge=0, le=1, description="lowest quality score kept, 0 to 1; 0 keeps all")] = 0.0
    near_duplicate_similarity: Annotated[
        float, Field(ge=0.5, le=1, description="Jaccard similarity of word 5-grams from which a document repeats another, fraction")
    ] = 0.8
    decontaminate: Annotated[list[str], Field(description="test files whose text (13 words in a row) no training document may hold")] = []  # noqa: RUF012
    engine: Annotated[
        Engine,
        Field(description="where cleaning and the building of the cache run: local: processes of this machine; ray: a Ray cluster"),
    ] = "local"
    dataset_name: Annotated[str | None, Field(description="Hugging Face dataset, the same as sources: hf:NAME")] = None
    dataset_config: Annotated[str | None, Field(description="configuration of dataset_name")] = None
    dataset_split: Annotated[str | None, Field(description="training split of dataset_name")] = None
    validation_split: Annotated[str | None, Field(description="validation split of dataset_name")] = None
