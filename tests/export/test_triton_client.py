"""The client of a Triton repository: its masks, and what it says when the server has no place for it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served_model import tracked
from support import HEIGHT, WIDTH, moving_square, write_frames
from user_errors import raises_user_error

from maskring.common.errors import MaskError, SourceError, UnavailableError
from maskring.runtime.video.masks import read_mask, write_mask

pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
import triton_server


@pytest.fixture(scope="module")
def client(repository: Path) -> Any:
    """The client of the repository, as a module."""
    spec = importlib.util.spec_from_file_location("triton_client", repository / "client.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def two_streams(repository: Path, tmp_path: Path, address: str) -> None:
    """Two clients at once, each with its own video and objects, get the masks that the tracker makes."""
    commands, expected = [], []
    for name, shift, object_id in (("one", 0, 7), ("two", 12, 200)):
        clip = [moving_square(index + shift) for index in range(9)]
        folder = write_frames(tmp_path / name, len(clip), first=shift)
        write_mask(tmp_path / f"{name}.png", clip[0][1] * np.uint8(object_id))
        expected.append([m * object_id for m in tracked(repository.parent / "plain.onnx", clip)])
        arguments = [folder, tmp_path / f"{name}.png", address, "--out", tmp_path / f"{name}_masks"]
        commands.append([sys.executable, repository / "client.py", *arguments])
    running = [
        subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for c in commands
    ]
    for name, masks, process in zip(("one", "two"), expected, running, strict=True):
        said, complaint = process.communicate(timeout=900)
        assert process.returncode == 0, complaint
        assert len(said.splitlines()) == len(masks)
        for index, labels in enumerate(masks):
            found = read_mask(tmp_path / f"{name}_masks" / f"{index:05d}.png", allow_empty=True)
            np.testing.assert_array_equal(found, labels, err_msg=f"{name} {index}")


def test_two_clients_at_once_get_their_own_masks(repository: Path, tmp_path: Path) -> None:
    """In processes of their own, against the fake server."""
    fake = triton_server.FakeTriton(repository)
    with triton_server.serving(fake) as address:
        two_streams(repository, tmp_path, address)
    assert not fake.last_used, "both said END"


@pytest.mark.slow
@pytest.mark.skipif(bool(triton_server.missing_triton()), reason=triton_server.missing_triton())
def test_two_clients_at_once_on_a_real_server(repository: Path, tmp_path: Path, client: Any) -> None:
    with triton_server.real_triton(repository, tmp_path) as address:
        two_streams(repository, tmp_path, address)
        streams_beyond_the_limit_are_turned_away(client, address)


def streams_beyond_the_limit_are_turned_away(client: Any, address: str) -> None:
    """Two places: the third stream is told so, and follows its object once a place is free."""
    frame, mask = moving_square(0)
    with client.Stream(address, mask) as first, client.Stream(address, mask) as second:
        first.step(frame), second.step(frame)
        with raises_user_error(UnavailableError, mentions=(address, "--wait", "--streams")):
            client.Stream(address, mask, wait=0.05).step(frame)
        second.close()
        with client.Stream(address, mask) as third:
            np.testing.assert_array_equal(third.step(frame), mask)
    with client.Stream(address, mask) as fourth, client.Stream(address, mask) as fifth:
        np.testing.assert_array_equal(fourth.step(frame), fifth.step(frame))


def test_streams_beyond_the_limit_are_turned_away(repository: Path, client: Any) -> None:
    with triton_server.serving(triton_server.FakeTriton(repository)) as address:
        streams_beyond_the_limit_are_turned_away(client, address)


def test_a_stream_that_paused_too_long_is_told(repository: Path, client: Any) -> None:
    """Its place goes to others, and it gets no mask of theirs."""
    fake, (frame, mask) = triton_server.FakeTriton(repository), moving_square(0)
    with triton_server.serving(fake) as address, client.Stream(address, mask) as stream:
        stream.step(frame)
        fake.pass_time(29)
        stream.step(frame)
        fake.pass_time(31)
        with raises_user_error(UnavailableError, mentions=(address, "paused", "mask")):
            stream.step(frame)
        assert not fake.last_used
    with raises_user_error(UnavailableError, mentions=("localhost:1",)):
        client.Stream("localhost:1", mask)


def test_a_stream_that_fails_frees_its_place(repository: Path, client: Any) -> None:
    fake, (frame, mask) = triton_server.FakeTriton(repository), moving_square(0)
    with triton_server.serving(fake) as address:
        with pytest.raises(KeyboardInterrupt), client.Stream(address, mask) as stream:
            stream.step(frame)
            assert len(fake.last_used) == 1
            raise KeyboardInterrupt
        assert not fake.last_used


def test_what_the_served_model_cannot_take_is_refused(repository: Path, client: Any, tmp_path: Path) -> None:
    fake, (frame, mask) = triton_server.FakeTriton(repository), moving_square(0)
    with triton_server.serving(fake) as address:
        with raises_user_error(MaskError, mentions=("--objects 2",)):
            client.Stream(address, np.where(np.arange(WIDTH) < 3, 2, mask).astype(np.uint8))
        with raises_user_error(MaskError, mentions=(f"{WIDTH - 1} x {HEIGHT}", f"--width {WIDTH - 1}")):
            client.Stream(address, mask[:, 1:])
        with (
            client.Stream(address, mask) as stream,
            raises_user_error(SourceError, mentions=(f"--height {HEIGHT - 1}",)),
        ):
            stream.step(frame[1:])
        command = [sys.executable, repository / "client.py", tmp_path, tmp_path / "none.png", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 2 and "none.png" in done.stderr and "Traceback" not in done.stderr
