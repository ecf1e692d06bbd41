"""Ray, and nothing of Ray elsewhere: a cluster, the agents on its nodes, and losing them."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fairshare.cluster.agent import Agent, Greeting
from fairshare.cluster.messages import LostError, unpacked
from fairshare.errors import PreflightError
from fairshare.processes.scope import LONGEST_TMPDIR
from fairshare.spec.launcher import DeviceKind

VIRTUAL = "fairshare_virtual"  # the resource of nodes that may simulate a GPU, or use their CPUs
GREETING_S = 60.0
_ANSWER_S = 5.0
_LOOPBACK = "127.0.0.1"
_STORE_BYTES = 80 * 1024**2  # what travels goes past Ray's object store


@dataclass(frozen=True, slots=True)
class RayAgent:
    """An agent on a node, reached through Ray; ``name`` is the machine's in the results."""

    name: str
    gpu: str | None
    handle: Any

    async def run(self, job: bytes) -> AsyncGenerator[Any, None]:
        """Have a job done; the messages of our process there.

        Raises:
            LostError: the agent or the process is gone.
        """
        try:
            async for answer in self._begin(job):
                yield unpacked(await answer)
        except RayTaskError as error:
            raise LostError(_last_line(error), agent_lives=True) from None
        except RayError as error:
            raise LostError(_last_line(error), agent_lives=False) from None

    def survey(self, job: bytes) -> Iterator[Any]:
        """As `run`, for who has nothing else to wait for; the job begins at once."""
        return self._answers(self._begin(job))

    def _begin(self, job: bytes) -> Any:
        return self.handle.run.options(num_returns="streaming").remote(job)

    @staticmethod
    def _answers(answers: Any) -> Iterator[Any]:
        try:
            for answer in answers:
                yield unpacked(ray.get(answer))
        except RayError as error:
            raise LostError(_last_line(error), agent_lives=False) from None

    def say(self, what: bytes) -> None:
        """Say something to our process there; nobody waits for it to be heard."""
        with contextlib.suppress(RayError):
            self.handle.say.remote(what)

    def dismiss(self) -> None:
        """Give the device back to Ray; our process there, if there is one, is killed."""
        with contextlib.suppress(RayError, ValueError):
            ray.kill(self.handle)


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Be connected with a cluster, or with one of this machine alone, while the block lasts.

    Raises:
        PreflightError: there is no such cluster, or it is of other versions of Python or Ray.
    """
    wanted: dict[str, Any] = {"address": address}
    with contextlib.ExitStack() as stack:
        if address is None:
            folder = Path(stack.enter_context(_short_folder()))
            stack.enter_context(_variables(_private(folder)))
            wanted = _alone(folder)
        else:
            _require_answer(address)
        try:
            ray.init(**wanted, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError, OSError, ImportError, RayError) as error:
            raise PreflightError(
                f"Ray cannot be used{f' at {address}' if address else ''}: {_last_line(error)}",
                hint="run this on a node of the cluster, with its versions of Python and Ray and "
                "its RAY_AUTH_MODE and token; ray status shows what there is",
            ) from None
        stack.callback(ray.shutdown)
        yield


def _require_answer(address: str) -> None:
    """Ray itself tries for more than a minute.

    Raises:
        PreflightError: the address is none, or nobody listens there.
    """
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdigit():
        raise PreflightError(f"{address} is no address of a cluster", hint="auto, or HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise PreflightError(
            f"no Ray cluster answers at {address}: {error}",
            hint="ray status, on a node of the cluster, tells its address; auto finds it there",
        ) from None


def _short_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder whose path leaves room for the sockets that Ray makes far below it."""
    usual = tempfile.gettempdir()
    base = usual if len(usual) <= LONGEST_TMPDIR else "/tmp"  # noqa: S108 - its name is random
    return tempfile.TemporaryDirectory(prefix="fs-", dir=base, ignore_cleanup_errors=True)


def _alone(folder: Path) -> dict[str, Any]:
    """A cluster of this machine, reached from nowhere else."""
    return {
        "address": "local",
        "num_cpus": 1,
        "resources": {VIRTUAL: 1},
        "include_dashboard": False,
        "object_store_memory": _STORE_BYTES,
        "_node_ip_address": _LOOPBACK,
        "_temp_dir": str(folder),
    }


def _private(folder: Path) -> dict[str, str]:
    """Who does not know the token is refused; without one, Ray would leave its own in our home."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="ascii")
    return {"RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Have these in the environment while the block lasts: Ray reads them nowhere else."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def kind_of_cluster() -> DeviceKind:
    """The kind of device that is meant where none is named: GPUs, if Ray has any."""
    return DeviceKind.CUDA if ray.cluster_resources().get("GPU") else DeviceKind.VIRTUAL


def agents(kind: DeviceKind) -> tuple[list[tuple[RayAgent, Greeting]], dict[str, str]]:
    """An agent for each device of that kind that Ray gives us, and why it gives no others.

    Raises:
        PreflightError: no node of the cluster has such a device.
    """
    wanted = [
        (node, number)
        for node in ray.nodes()
        if node["Alive"]
        for number in range(_devices(node["Resources"], kind))
    ]
    if not wanted:
        raise _no_device(kind)
    hosts = Counter(node["NodeManagerHostname"] for node in _each_once(wanted))
    begun = {_name(node, number, hosts): _begin(node, kind) for node, number in wanted}
    greetings = {name: handle.greet.remote() for name, handle in begun.items()}
    ready, _ = ray.wait(
        list(greetings.values()), num_returns=len(greetings), timeout=GREETING_S, fetch_local=False
    )
    found: list[tuple[RayAgent, Greeting]] = []
    absent: dict[str, str] = {}
    for name, answer in greetings.items():
        if answer not in ready:
            absent[name] = "Ray gives none of its devices to us: other jobs have them"
            ray.kill(begun[name])
            continue
        try:
            greeting: Greeting = ray.get(answer)
        except RayError as error:
            absent[name] = f"our agent does not start there: {_last_line(error)}"
        else:
            found.append((RayAgent(name, greeting.gpu, begun[name]), greeting))
    return found, absent


def _devices(resources: dict[str, float], kind: DeviceKind) -> int:
    if kind is DeviceKind.CUDA:
        return int(resources.get("GPU", 0))
    return min(1, int(resources.get(VIRTUAL, 0)))  # its simulated GPU, or all of its CPUs


def _begin(node: dict[str, Any], kind: DeviceKind) -> Any:
    needs: dict[str, Any] = (
        {"num_gpus": 1} if kind is DeviceKind.CUDA else {"resources": {VIRTUAL: 1}}
    )
    here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    options = {"num_cpus": 0, "max_concurrency": 4, "max_restarts": 0, "scheduling_strategy": here}
    return ray.remote(Agent).options(**options, **needs).remote()


def _name(node: dict[str, Any], number: int, hosts: Counter[str]) -> str:
    """The host's name, with what tells it apart where that does not."""
    name: str = node["NodeManagerHostname"]
    if hosts[name] > 1:
        name = f"{name}-{node['NodeID'][:6]}"
    return name if int(node["Resources"].get("GPU", 0)) < 2 else f"{name}/{number}"


def _each_once(wanted: list[tuple[dict[str, Any], int]]) -> list[dict[str, Any]]:
    return list({node["NodeID"]: node for node, _ in wanted}.values())


def _no_device(kind: DeviceKind) -> PreflightError:
    if kind is DeviceKind.CUDA:
        return PreflightError(
            "no node of the Ray cluster has a GPU",
            hint="ray status shows what Ray counts; --device virtual simulates one",
        )
    return PreflightError(
        f"no node of the Ray cluster has the resource {VIRTUAL}",
        hint=f"start those that may run it with: ray start --resources='{{\"{VIRTUAL}\": 1}}'",
    )


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
