"""Several ranks on the CPU, forked from the test so that nothing is imported again."""

import multiprocessing
import os
import socket
import time
import traceback

import torch
from lightning_utilities.core.rank_zero import rank_zero_only


def in_ranks(function, *args, world=2, seconds=240):
    """Call ``function(*args)`` on every rank at once and return what each returns; an exception there fails here.

    A rank sees the environment of one that torchrun or SLURM started: Lightning starts no processes of its own.
    """
    context = multiprocessing.get_context("fork")
    port = _free_port()
    pipes = [context.Pipe(duplex=False) for _ in range(world)]
    ranks = [
        context.Process(target=_run, args=(rank, world, port, pipe, function, args))
        for rank, (_, pipe) in enumerate(pipes)
    ]
    for rank in ranks:
        rank.start()
    try:
        answers = [pipe.recv() if pipe.poll(seconds) else ("no answer", None) for pipe, _ in pipes]
    finally:
        for rank in ranks:
            rank.kill()
            rank.join()
    failures = [failure for failure, _ in answers if failure]
    assert not failures, "\n".join(failures)
    return [result for _, result in answers]


def _run(rank, world, port, pipe, function, args):
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    rank_zero_only.rank = rank
    torch.set_num_threads(1)
    try:
        answer = (None, function(*args))
    except BaseException:
        answer = (f"rank {rank}: {traceback.format_exc()}", None)
    pipe.send(answer)
    pipe.close()
    _wait_for_the_others()


def _wait_for_the_others():
    """A rank that ends tears connections from which others may still read; the parent ends all at once."""
    time.sleep(600)


def _free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
