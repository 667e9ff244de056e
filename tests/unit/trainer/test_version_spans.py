import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_pipeline.trainer.version_spans import (
    VersionMark,
    VersionSpan,
    cut_spans,
    dump_spans,
    join_spans,
    parse_spans,
)

versions = st.integers(0, 3)
sampled = st.lists(versions, max_size=30)  # by token, the version


def expand(spans):
    return [span.version for span in spans for _token in range(span.tokens)]


def split(tokens):
    return [VersionSpan(version, 1) for version in tokens]


def is_shortest(spans):
    pairs = zip(spans, spans[1:], strict=False)
    return all(span.tokens for span in spans) and all(a.version != b.version for a, b in pairs)


@given(st.lists(st.tuples(versions, st.integers(0, 5)), max_size=8))
def test_an_answers_spans_are_what_each_version_sampled(periods):
    tokens, marks = [], []
    for version, count in periods:
        tokens += [version] * count
        marks.append(VersionMark(version, len(tokens)))
    last = periods[-1][0] if periods else 9
    spans = cut_spans(marks[:-1], len(tokens), last)
    assert expand(spans) == tokens and is_shortest(spans)


@given(sampled, sampled)
def test_joined_spans_keep_every_token_in_its_place(first, second):
    whole = join_spans([*join_spans(split(first)), *join_spans(split(second))])
    assert expand(whole) == first + second and is_shortest(whole)


@given(sampled)
def test_what_is_dumped_is_read_again(tokens):
    spans = join_spans(split(tokens))
    assert parse_spans(dump_spans(spans)) == spans
    assert parse_spans(tuple(map(tuple, dump_spans(spans)))) == spans  # as a transport may have it


def test_a_server_that_tells_no_spans_has_none():
    assert parse_spans(None) == []


@pytest.mark.parametrize(
    "value",
    [3, "12", [[1]], [[1, 2, 3]], [[1, -2]], [[-1, 2]], [[1, 2.0]], [["1", 2]], [[True, 1]]],
)
def test_anything_else_is_refused(value):
    with pytest.raises(ValueError, match=r"must be \[\[version, tokens\], \.\.\.\]"):
        parse_spans(value)
