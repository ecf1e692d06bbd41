"""The model's tokenizer, reduced to what prompts need; nothing heavy is imported before use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from fairshare.errors import Location, SpecError


class Tokenizer(Protocol):
    """Text to token ids and back, without any special tokens added."""

    def encode(self, text: str) -> list[int]:
        """The token ids of ``text``."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that mean something to the engine and must not occur in a random prompt."""


class _Fast:
    """A ``tokenizer.json``, read by the tokenizers library alone (transformers costs seconds)."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._backend.decode(list(ids), skip_special_tokens=False))

    @property
    def special_ids(self) -> frozenset[int]:
        return frozenset(self._backend.get_added_tokens_decoder())


class _Transformers:
    """Any other tokenizer that transformers can load from a folder."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._backend.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._backend.decode(list(ids)))

    @property
    def special_ids(self) -> frozenset[int]:
        return frozenset(self._backend.all_special_ids)


_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")


def has_tokenizer(path: str | Path) -> bool:
    """Whether the model's folder holds a tokenizer of any kind."""
    return any((Path(path) / name).is_file() for name in _TOKENIZER_FILES)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a model's folder; never fetched from the network.

    Raises:
        SpecError: there is no tokenizer in the folder, or it cannot be read.
    """
    folder = Path(path)
    file = folder / "tokenizer.json"
    if not folder.is_dir():
        raise SpecError("the model's folder does not exist", where=Location(folder))
    try:
        if file.is_file():
            import tokenizers  # noqa: PLC0415  (heavy; only where text is made or counted)

            return _Fast(tokenizers.Tokenizer.from_file(str(file)))
        import transformers  # noqa: PLC0415  (heavy; only for models without tokenizer.json)

        return _Transformers(
            transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        )
    except Exception as error:  # the libraries raise bare Exception for a damaged file
        raise SpecError(
            f"no usable tokenizer: {_first_line(error)}",
            where=Location(file if file.is_file() else folder),
            hint="the model's folder needs a tokenizer.json (or another that transformers reads)",
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
