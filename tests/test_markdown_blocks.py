"""The runner of documentation blocks runs what it should and lets nothing pass in silence."""

from __future__ import annotations

import pytest
from sybil import Document
from sybil.example import SybilFailure

from markdown_blocks import MarkdownBlockParser


@pytest.fixture
def examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def parse(text):
        path = tmp_path / "page.md"
        path.write_text(text, encoding="utf-8")
        return list(Document.parse(str(path), MarkdownBlockParser()))

    return parse


def block(language, source, before=""):
    return f"Some text.\n\n{before}```{language}\n{source}\n```\n\nMore text.\n"


def test_python_blocks_share_their_names(examples):
    first, second = examples(block("python", "x = 6") + block("python", "assert x * 7 == 42"))
    first.evaluate()
    second.evaluate()


@pytest.mark.parametrize(
    "source", ["assert 1 == 2", ">>> 1 + 1\n3", ">>> 1 + 1\n2\n\n>>> 2 + 2\n5"]
)
def test_wrong_python_fails(examples, source):
    with pytest.raises(AssertionError):
        for example in examples(block("python", source)):
            example.evaluate()


def test_a_block_that_is_a_file_is_written_and_not_run(examples, tmp_path):
    text = block("python", "x = 1 / 0", before="<!-- file: wrong.py -->\n")
    (example,) = examples(text)
    example.evaluate()
    assert (tmp_path / "wrong.py").read_text() == "x = 1 / 0\n"
    (example,) = examples(text.replace("1 / 0", "1 /"))
    with pytest.raises(SyntaxError):
        example.evaluate()


def test_commands_run_in_the_current_directory(examples, tmp_path):
    command = '# a file\npython -c \\\n  \'open("made", "w")\''
    (example,) = examples(block("bash", command))
    example.evaluate()
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("language", "source", "message"),
    [
        ("bash", "python -c 'raise SystemExit(3)'", "Exit code 3"),
        ("bash", "python -c 'raise SystemExit(3)'\npython -c ''", "Exit code 3"),
        ("bash", "pip install thalweg", "blocks run only thalweg and python"),
        ("toml", "a = 1", "A block of toml"),
        ("", "?", "A block of no language"),
    ],
)
def test_failures_say_what_is_wrong(examples, language, source, message):
    (example,) = examples(block(language, source))
    with pytest.raises(SybilFailure, match=message):
        example.evaluate()


def test_a_block_may_say_why_it_is_not_run(examples):
    reason = "<!-- not run: needs the network -->\n"
    (example,) = examples(block("bash", "pip install thalweg", before=reason))
    with pytest.raises(pytest.skip.Exception, match="needs the network"):
        example.evaluate()


def test_a_reason_counts_only_directly_before_the_block(examples):
    reason = "<!-- not run: needs the network -->\n\nOther text.\n"
    (example,) = examples(block("bash", "pip install thalweg", before=reason))
    with pytest.raises(SybilFailure):
        example.evaluate()


def test_output_is_not_run(examples):
    assert examples(block("text", "loss 0.0")) == []
