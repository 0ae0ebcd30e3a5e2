# SPDX-License-Identifier: GPL-3.0-or-later
"""The Ray engine: the same tasks on a cluster, by Ray Core tasks only.

Ray places tasks by cores, GPUs, memory and pool; `granulo_core.engine.ray_task` does them there as
the local engine does. The cluster is called through Ray's client, so that the service's pod is no
part of it. When the cluster goes away, what was on its way is submitted again once it is back;
tasks may run any number of times with the same result.
"""

import os
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import grpc
import structlog

from granulo_core.engine import ray_task
from granulo_core.engine.groups import Group, Job
from granulo_core.engine.port import Load
from granulo_core.engine.queued import QueuedEngine
from granulo_core.errors import GranuloError, Reason
from granulo_core.telemetry.metrics import count_all

_log = structlog.get_logger(__name__)
POOL_RESOURCE = "pool_{}"
"""Custom resource of Ray's nodes that take tasks of a pool, as much of it as they like."""
# Enough that a cluster that grows with what waits sees it, and few enough that others get a turn.
_MOST_SUBMITTED = 256
_LOOK_S = 0.1
_NODES_S = 5.0
_TELL_S = 60.0
_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.5, 15.0
_MIB = 1 << 20


class RayEngine(QueuedEngine):
    """Runs tasks on a Ray cluster.

    Parameters
    ----------
    address : str
        ``ray://HOST:PORT`` of the head's client server.
    token_file : str, optional
        File with the cluster's token.
    node_cpus : float, optional
        Cores of the largest node; a task that asks for more gets these. By default those of the
        largest node that is there when the task is submitted, which is too few to tell for a
        cluster that starts its nodes when something waits for them.

    Raises
    ------
    GranuloError
        EXTRA_NOT_INSTALLED without Ray. A cluster that cannot be reached is waited for instead.
    """

    def __init__(self, address: str, token_file: str = "", node_cpus: float = 0.0) -> None:
        super().__init__()
        self._ray = _imported(token_file)
        self._address = address
        self._node_cpus = node_cpus
        self._flights: dict[Any, _Flight] = {}
        self._nodes: list[Mapping[str, float]] = []
        self._nodes_s = self._told_s = -_TELL_S
        self._connected = False
        # Ray's client belongs to one thread.
        self._begin()

    def load(self) -> Mapping[tuple[str, str], Load]:
        """Tasks that wait and run now; see `granulo_core.engine.port.Engine`.

        Of what was submitted, as much is taken to run as the pool's nodes have cores for.
        """
        with self._changed:
            waiting = Counter(job.kind for group in self._turns for job in group.waiting)
            running: Counter[tuple[str, str]] = Counter()
            asked: dict[str, float] = defaultdict(float)
            for flight in self._flights.values():
                nodes = flight.job.task.resources.nodes
                fits = asked[nodes] + flight.cpus <= self._cores(nodes)
                asked[nodes] += flight.cpus if fits else 0.0
                (running if fits else waiting)[flight.job.kind] += 1
            return {kind: Load(waiting[kind], running[kind]) for kind in self._kinds}

    def _stop_all(self) -> set[Group]:
        return {*self._turns, *(flight.job.group for flight in self._flights.values())}

    def _cancel(self, group: Group) -> None:
        with self._changed:
            dropped = self._turns.drop(group)
            self._changed.notify_all()
        for job in dropped:
            job.cancelled()

    def _is_over(self, job: Job) -> bool:
        """Whether nobody waits for a job any more, wherever it is just now."""
        return self._closed or job.group.is_cancelled

    def _cores(self, nodes: str) -> float:
        return sum(
            node.get("CPU", 0.0) for node in self._nodes if POOL_RESOURCE.format(nodes) in node
        )

    # The dispatcher's thread ----------------------------------------------------------------

    def _dispatch(self) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._turns or self._flights, 1.0)
                if self._closed and not self._flights:
                    break
            if not (self._turns or self._flights):
                continue
            try:
                self._connect()
                self._work()
                retry_s = _FIRST_RETRY_S
            except Exception as error:
                self._lost(error)
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, retry_s)
                retry_s = min(2 * retry_s, _LONGEST_RETRY_S)
        self._disconnect()

    def _connect(self) -> None:
        if self._connected:
            return
        self._ray.init(
            self._address, log_to_driver=False, logging_level="error", namespace="granulo"
        )
        self._remote = self._ray.remote(ray_task.do)
        self._connected = True
        _log.info("connected to the cluster", address=self._address)

    def _work(self) -> None:
        """One round: kill what was cancelled, submit what there is room for, gather what ended."""
        self._look_at_nodes()
        with self._changed:
            over = [
                (reference, flight)
                for reference, flight in self._flights.items()
                if self._is_over(flight.job) and not flight.is_cancelled
            ]
            room = _MOST_SUBMITTED - len(self._flights)
            jobs: list[Job] = []
            while room > len(jobs) and self._turns and not self._closed:
                jobs.append(self._turns.take())
        try:
            for reference, flight in over:
                flight.is_cancelled = True
                self._ray.cancel(reference, force=True)
            while jobs:
                self._start(jobs[0])
                jobs.pop(0)
        finally:
            self._give_back(jobs)
        self._gather()

    def _give_back(self, jobs: Sequence[Job]) -> None:
        """Let jobs begin anew that are not on their way, or end those that nobody waits for."""
        with self._changed:
            over = [job for job in jobs if self._is_over(job)]
            for job in reversed(jobs):
                if job not in over:
                    self._turns.put_back(job)
        for job in over:
            job.cancelled()

    def _start(self, job: Job) -> None:
        wanted = job.task.resources
        cpus = min(wanted.cpu, self._largest_node(wanted.nodes))
        resources = replace(wanted, cpu=cpus)
        left = max(1, job.task.max_attempts - job.attempts)
        reference = self._remote.options(
            name=job.task.id,
            num_cpus=cpus,
            num_gpus=wanted.gpu,
            memory=wanted.memory_mib * _MIB or None,
            resources={POOL_RESOURCE.format(wanted.nodes): 1},
            max_retries=0,
        ).remote(replace(job.task, resources=resources, max_attempts=left), job.context)
        with self._changed:
            self._flights[reference] = _Flight(job, cpus)

    def _gather(self) -> None:
        with self._changed:
            references = list(self._flights)
        if not references:
            return
        ended, _ = self._ray.wait(references, num_returns=len(references), timeout=_LOOK_S)
        for reference in ended:
            done, death = self._ended(reference)
            with self._changed:
                flight = self._flights.pop(reference)
            self._finish(flight, done, death)

    def _ended(self, reference: Any) -> "tuple[ray_task.Done | None, GranuloError | None]":
        """What a task came to; neither where its worker or its node is gone."""
        failures = self._ray.exceptions
        try:
            return self._ray.get(reference), None
        except (ConnectionError, grpc.RpcError, failures.RpcError):
            raise  # the cluster is away
        except failures.TaskCancelledError:
            return None, None
        except failures.RayTaskError as error:
            cause = f"{type(error.cause).__name__}: {error.cause}"
        except failures.RayError as error:
            # The worker, its node, its disk or its memory: another attempt may do.
            _log.warning("a task came to nothing", error=f"{type(error).__name__}: {error}")
            return None, None
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
        message = f"A node of the cluster cannot do the task ({cause}); is its image this one?"
        return None, GranuloError(Reason.TASK_FAILED, message)

    def _finish(
        self, flight: "_Flight", done: "ray_task.Done | None", error: GranuloError | None
    ) -> None:
        job = flight.job
        job.attempts += done.outcome.attempts if done else 1
        if done is not None:
            _count(done)
        if flight.is_cancelled:
            job.cancelled()
        elif done is not None:
            job.finish(done.outcome.receipt, done.outcome.error)
        elif (error := error or job.death(None)) is not None:
            job.finish(None, error)
        else:
            _log.warning("a node or its worker died", task=job.task.id, attempt=job.attempts)
            self._give_back([job])

    def _look_at_nodes(self) -> None:
        now_s = time.monotonic()
        if now_s - self._nodes_s < _NODES_S:
            return
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        with self._changed:
            self._nodes, self._nodes_s = nodes, now_s
            wanted = {job.task.resources.nodes for job in self._jobs()}
        without = sorted(nodes for nodes in wanted if not self._cores(nodes))
        if without and now_s - self._told_s >= _TELL_S:
            self._told_s = now_s
            resources = [POOL_RESOURCE.format(nodes) for nodes in without]
            _log.warning("tasks wait for nodes with these resources", resources=resources)

    def _jobs(self) -> list[Job]:
        waiting = [job for group in self._turns for job in list(group.waiting)[:1]]
        return waiting + [flight.job for flight in self._flights.values()]

    def _largest_node(self, nodes: str) -> float:
        """Cores that a task may ask for at most."""
        if self._node_cpus:
            return self._node_cpus
        resource = POOL_RESOURCE.format(nodes)
        return max((node.get("CPU", 0.0) for node in self._nodes if resource in node), default=1.0)

    def _lost(self, error: Exception) -> None:
        """The cluster is away: what was on its way begins anew, or is over where cancelled."""
        now_s = time.monotonic()
        if self._connected or now_s - self._told_s >= _TELL_S:
            self._told_s = now_s
            _log.warning("the cluster cannot be reached", address=self._address, error=str(error))
        self._disconnect()
        with self._changed:
            flights, self._flights = list(self._flights.values()), {}
        self._give_back([flight.job for flight in flights])

    def _disconnect(self) -> None:
        self._connected = False
        with suppress(Exception):
            self._ray.shutdown()


@dataclass(eq=False)
class _Flight:
    """A task that Ray has."""

    job: Job
    cpus: float
    is_cancelled: bool = False


def _count(done: "ray_task.Done") -> None:
    """Count what a node measured; no figure is worth a result."""
    try:
        count_all(done.measurements)
    except (KeyError, ValueError) as error:
        _log.warning("a node measures what this version does not know", error=str(error))


def _imported(token_file: str) -> ModuleType:
    """Ray, told before its import what it reads from the environment only."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # How long the client tries to get back to a cluster that has lost its memory of it.
    os.environ.setdefault("RAY_CLIENT_RECONNECT_GRACE_PERIOD", "5")
    if token_file:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = token_file
    try:
        import ray
    except ImportError as error:
        raise GranuloError(
            Reason.EXTRA_NOT_INSTALLED,
            "GRANULO_ENGINE is ray, and Ray is not installed; install granulo-core[ray].",
        ) from error
    return ray
