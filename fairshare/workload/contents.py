"""What requests hold, in order: prompt and output length, without the times they are sent at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np

from fairshare.errors import SpecError
from fairshare.spec.lengths import Length
from fairshare.spec.workload import SyntheticPrompts
from fairshare.workload.blocks import Blocks
from fairshare.workload.files import FilePrompt
from fairshare.workload.lengths import endless
from fairshare.workload.prompts import Vocabulary

Content = tuple[list[int] | None, str | None, int, int]
"""Prompt ids or prompt text, prompt tokens, output tokens asked for."""

Pieces = list[Any]
"""Token ids, or words of a token each where prompts are text."""


@dataclass(slots=True)
class Adjustments:
    """Where requests could not be what the scenario says; the caller reports what is not zero."""

    clipped: int = 0
    """Requests shortened so that prompt and output fit ``max_total_tokens``."""
    skipped: int = 0
    """Prompts of a file left out because they alone do not fit (and what would follow them)."""
    repeated: int = 0
    """Prompts of a file sent again because there were too few (a prefix cache may serve them)."""
    left_out: int = 0
    """Requests of a trace that have no tokens, since they failed when it was taken."""
    trace_ended: bool = False
    """Whether a trace was shorter than the load it was to give."""


@dataclass(frozen=True, slots=True)
class ContentMaker:
    """Makes contents of one tenant's requests; ``rng`` is used for prompts and file order alone."""

    vocabulary: Vocabulary
    rng: np.random.Generator
    as_text: bool = False
    max_total_tokens: int | None = None
    adjustments: Adjustments = field(default_factory=Adjustments)

    def synthetic(
        self, prompts: SyntheticPrompts, output: Length, rngs: Sequence[np.random.Generator]
    ) -> Iterator[Content]:
        """Random prompts without end, lengths drawn from ``rngs`` (prompts, outputs)."""
        for prompt, asked in _lengths(prompts, output, rngs):
            yield self.of_lengths(prompt, asked)

    def conversations(
        self,
        prompts: SyntheticPrompts,
        output: Length,
        rngs: Sequence[np.random.Generator],
        calls: Iterator[int],
    ) -> Iterator[Content]:
        """As :meth:`synthetic`, but each prompt begins with all that was said before it.

        ``calls`` are the lengths of the conversations in calls. What was answered is not known
        here: random tokens, as many as were asked for, stand in its place. A conversation that
        does not fit any more is cut at its end.
        """
        lengths = _lengths(prompts, output, rngs)
        for count in calls:
            said: Pieces = []
            for _ in range(count):
                more, answer = next(lengths)
                prompt, output_tokens = self._fit(len(said) + more, answer)
                said = [*said, *self._pieces(more)][:prompt]
                yield self._content(said, output_tokens)
                said = [*said, *self._pieces(output_tokens)]

    def of_lengths(self, prompt: int, output: int, blocks: Blocks | None = None) -> Content:
        """One random prompt, shortened where it must be; it begins with ``blocks`` if given."""
        prompt, output = self._fit(prompt, output)
        shared = blocks.pieces(self.vocabulary, prompt, as_text=self.as_text) if blocks else []
        return self._content([*shared, *self._pieces(prompt - len(shared))], output)

    def _pieces(self, n: int) -> Pieces:
        vocabulary, rng = self.vocabulary, self.rng
        return vocabulary.words(rng, n) if self.as_text else vocabulary.ids(rng, n)

    def _content(self, pieces: Pieces, output: int) -> Content:
        if self.as_text:
            return None, self.vocabulary.join(pieces), len(pieces), output
        return pieces, None, len(pieces), output

    def of_file(
        self, prompts: Sequence[FilePrompt], output: Length | None, rng: np.random.Generator
    ) -> Iterator[Content]:
        """The file's prompts in random order, over and over.

        The output length is the file's own for that prompt, else drawn from ``output``, else that
        of the reply in the file.

        Raises:
            SpecError: an output length is known from nowhere, or no prompt fits.
        """
        return chain.from_iterable(self.of_talks([[prompt] for prompt in prompts], output, rng))

    def of_talks(
        self, talks: Sequence[Sequence[FilePrompt]], output: Length | None, rng: np.random.Generator
    ) -> Iterator[list[Content]]:
        """The file's conversations, as :meth:`of_file`: each prompt begins with all said before it.

        The replies in it are the file's, so that every mode is sent the same. A conversation that
        does not fit any more is cut at its end.

        Raises:
            SpecError: an output length is known from nowhere, or no first prompt fits.
        """
        outputs = endless(output, rng) if output is not None else None
        served = 0
        while True:
            before = served
            for index in self.rng.permutation(len(talks)).tolist():
                if contents := self._of_talk(talks[index], outputs):
                    served += len(contents)
                    self.adjustments.repeated += len(contents) if before else 0
                    yield contents
            if served == before:
                raise SpecError(
                    f"none of the {len(talks)} prompts fits {self.max_total_tokens} tokens",
                    where=talks[0][0].where,
                    hint="use shorter prompts, or raise max_model_len in the launcher's args",
                )

    def _of_talk(self, talk: Sequence[FilePrompt], outputs: Iterator[int] | None) -> list[Content]:
        contents: list[Content] = []
        said = ""
        for turn in talk:
            content = self._of_file_prompt(replace(turn, text=said + turn.text), outputs)
            if content is None:
                break
            contents.append(content)
            said += f"{turn.text}\n{turn.reply}\n"
        return contents

    def _of_file_prompt(self, prompt: FilePrompt, outputs: Iterator[int] | None) -> Content | None:
        drawn = next(outputs) if outputs is not None else None
        wanted = prompt.max_tokens or drawn or self._reply_tokens(prompt)
        count = self.vocabulary.count(prompt.text)
        room = wanted if self.max_total_tokens is None else self.max_total_tokens - count
        if room < 1:
            self.adjustments.skipped += 1
            return None
        self.adjustments.clipped += room < wanted
        return None, prompt.text, count, min(wanted, room)

    def _reply_tokens(self, prompt: FilePrompt) -> int:
        tokens = self.vocabulary.count(prompt.reply) if prompt.reply is not None else 0
        if tokens == 0:
            raise SpecError(
                "how many tokens to ask for is not known: the file does not say, and without the "
                "model's tokenizer its replies cannot be counted",
                where=prompt.where,
                hint="give the tenant an output length, such as output: {kind: fixed, tokens: 64}",
            )
        return tokens

    def _fit(self, prompt: int, output: int) -> tuple[int, int]:
        """The longer of the two gives way first, down to half of the room."""
        room = self.max_total_tokens
        if room is None or prompt + output <= room:
            return prompt, output
        self.adjustments.clipped += 1
        if prompt <= room // 2:
            return prompt, room - prompt
        if output <= room // 2:
            return room - output, output
        return room - room // 2, room // 2


def _lengths(
    prompts: SyntheticPrompts, output: Length, rngs: Sequence[np.random.Generator]
) -> Iterator[tuple[int, int]]:
    return zip(endless(prompts.tokens, rngs[0]), endless(output, rngs[1]), strict=False)
