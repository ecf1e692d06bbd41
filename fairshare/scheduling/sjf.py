"""Shortest job first."""

from __future__ import annotations

from dataclasses import dataclass

from fairshare.scheduling.bookkeeping import Bookkeeping
from fairshare.scheduling.offer import Offer, option
from fairshare.scheduling.policy import Request
from fairshare.scheduling.prediction import predictor
from fairshare.scheduling.queues import Sorted


@dataclass(frozen=True, slots=True)
class SjfOptions:
    """What a job's length is, and where its output tokens are known from."""

    prediction: str = option(
        "limit",
        "output tokens: the request's limit, its tenant's average so far, or the truth",
        one_of=("limit", "average", "oracle"),
    )
    error_fraction: float = option(0.0, "by how much the oracle may be wrong", least=0, most=1)
    input_price: float = option(1.0, "length of an input token", least=0)
    output_price: float = option(2.0, "length of an output token", least=0)
    seed: int = option(0, "fixes the oracle's errors")


class Sjf(Bookkeeping[Sorted]):
    """The request that costs least goes first, as far as that can be told when it arrives.

    Short ones wait least, long ones may wait for ever: the mean is best, and nothing is fair.
    """

    name = "sjf"

    def __init__(self, options: SjfOptions) -> None:
        super().__init__(Sorted(self._size))
        self._options = options
        self._predictor = predictor(options.prediction, options.error_fraction, options.seed)
        self._sizes: dict[Request, float] = {}

    def head(self, now_s: float) -> Request | None:
        return self._waiting.first()

    def finish(self, request: Request, now_s: float) -> None:
        if request in self._running:
            self._predictor.learn(request)
        super().finish(request, now_s)
        self._sizes.pop(request, None)

    def cancel(self, request: Request, now_s: float, *, refund: bool = False) -> None:
        super().cancel(request, now_s, refund=refund)
        self._sizes.pop(request, None)

    def rank(self, request: Request) -> int:
        """The length."""
        return int(self._sizes[request])

    def _size(self, request: Request) -> float:
        """The length; guessed once, as the request comes, and kept until it has ended."""
        predicted = self._predictor.tokens(request)
        most = request.max_output_tokens
        output_tokens = most if predicted is None else min(predicted, most)
        size = self._sizes[request] = (
            self._options.input_price * request.prompt_tokens
            + self._options.output_price * output_tokens
        )
        return size


OFFER = Offer(
    name=Sjf.name,
    says="the least work, as far as it can be told",
    make=lambda options, tenants: Sjf(options),
    options=SjfOptions,
)
