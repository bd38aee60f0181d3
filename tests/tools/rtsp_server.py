"""A camera that speaks RTSP on loopback: JPEG in RTP (RFC 2435), interleaved with the requests (RFC 2326)."""

from __future__ import annotations

import socketserver
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np

QUALITY = 80
"""libjpeg's quality and RFC 2435's Q mean the same tables."""

CLOCK_HZ = 90_000
FPS = 25
LARGEST_PAYLOAD = 1400
YUV_420 = 1

DESCRIPTION = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\na=control:track\r\n"
)


def as_jpeg(image: np.ndarray) -> bytes:
    """An RGB image as the camera compresses it."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    return cv2.imencode(".jpg", image[..., ::-1], settings)[1].tobytes()


def scan(jpeg: bytes) -> bytes:
    """Its entropy-coded data; RFC 2435 takes the Huffman tables, the usual ones, for granted."""
    header = jpeg.index(b"\xff\xda")
    length = int.from_bytes(jpeg[header + 2 : header + 4], "big")
    return jpeg[header + 2 + length : -2]


def packets(image: np.ndarray, index: int, sequence: int) -> Iterator[bytes]:
    """One frame, each RTP packet behind the four bytes that interleave it."""
    height, width = image.shape[:2]
    data = scan(as_jpeg(image))
    for begin in range(0, len(data), LARGEST_PAYLOAD):
        part = data[begin : begin + LARGEST_PAYLOAD]
        last = begin + LARGEST_PAYLOAD >= len(data)
        rtp = struct.pack(">BBHII", 0x80, 26 | last << 7, sequence & 0xFFFF, index * CLOCK_HZ // FPS, 1)
        jpeg = struct.pack(">IBBBB", begin, YUV_420, QUALITY, width // 8, height // 8)
        packet = rtp + jpeg + part
        yield struct.pack(">cBH", b"$", 0, len(packet)) + packet
        sequence += 1


class _Connection(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        while request := self._request():
            method, address, number = request
            if not address.startswith(self.server.address):
                self._answer(number, "404 Not Found")
                continue
            if method == "OPTIONS":
                self._answer(number, "200 OK", "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
            elif method == "DESCRIBE":
                self._answer(number, "200 OK", "Content-Type: application/sdp", body=DESCRIPTION)
            elif method == "SETUP":
                self._answer(number, "200 OK", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1")
            elif method == "PLAY":
                self._answer(number, "200 OK", "Session: 1")
                self._play()
                break
            else:
                self._answer(number, "200 OK", "Session: 1")

    def _request(self) -> tuple[str, str, str] | None:
        """Method, address and number of the next request; None when there is none."""
        lines = []
        while (line := self.rfile.readline().decode().strip()) or not lines:
            if not line:
                return None
            lines.append(line)
        method, address, _ = lines[0].split()
        number = next(line.split(":")[1].strip() for line in lines if line.lower().startswith("cseq"))
        return method, address, number

    def _answer(self, number: str, status: str, *headers: str, body: str = "") -> None:
        lines = [f"RTSP/1.0 {status}", f"CSeq: {number}", *headers, f"Content-Length: {len(body)}", "", body]
        self.wfile.write("\r\n".join(lines).encode())

    def _play(self) -> None:
        """Send the frames of this connection and hang up."""
        sequence = 0
        for index, image in enumerate(next(self.server.connections, [])):
            for packet in packets(image, index, sequence):
                self.wfile.write(packet)
                sequence += 1


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, connections: Iterable[Iterable[np.ndarray]]) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.connections = iter(connections)
        self.address = f"rtsp://127.0.0.1:{self.server_address[1]}/live"

    def handle_error(self, *_: object) -> None:
        """A client may hang up whenever it likes."""


@contextmanager
def rtsp_camera(connections: Iterable[Iterable[np.ndarray]]) -> Iterator[str]:
    """The address of a camera that sends RGB frames (sides divisible by 16), as many as of each connection.

    Then it hangs up; connections that come later get none. It sends as fast as the frames are given.
    """
    server = _Server(connections)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.address
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
