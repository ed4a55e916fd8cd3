# SPDX-License-Identifier: MIT
"""usage: controller.py NODE [keep]

Controls the login session that it runs in and has logind open a card for it, as a display server does; and
keeps the descriptor that logind sends it, or not.
"""
import os
import socket
import struct
import sys

BUS = "org.freedesktop.DBus"
LOGIN = "org.freedesktop.login1"
NODE, KEEP = sys.argv[1], "keep" in sys.argv[2:]


def text(word):
    return struct.pack("<I", len(word)) + word.encode() + b"\0"


def aligned(data):
    return data + b"\0" * (-len(data) % 8)


class Bus:
    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect("/run/dbus/system_bus_socket")
        self.socket.sendall(b"\0")
        self.say("AUTH EXTERNAL " + str(os.getuid()).encode().hex(), "OK")
        self.say("NEGOTIATE_UNIX_FD", "AGREE_UNIX_FD")
        self.socket.sendall(b"BEGIN\r\n")
        self.serial = 0
        self.descriptors = []

    def say(self, line, expected):
        self.socket.sendall(line.encode() + b"\r\n")
        answer = self.socket.recv(4096).decode()
        if not answer.startswith(expected):
            raise SystemExit(f"{line}: {answer}")

    def read(self, count):
        data = b""
        while len(data) < count:
            if KEEP:
                part, descriptors, _, _ = socket.recv_fds(self.socket, count - len(data), 4)
                self.descriptors += descriptors
            else:
                # The kernel closes what is sent along.
                part = self.socket.recv(count - len(data))
            if not part:
                raise SystemExit("the bus is gone")
            data += part
        return data

    def message(self):
        """Kind and body of the next one."""
        head = self.read(16)
        body, fields = struct.unpack("<I", head[4:8])[0], struct.unpack("<I", head[12:16])[0]
        return head[1], self.read(fields + -fields % 8 + body)

    def call(self, to, path, interface, member, signature="", body=b""):
        self.serial += 1
        fields = b""
        for code, kind, value in (1, "o", path), (2, "s", interface), (3, "s", member), (6, "s", to):
            fields = aligned(fields) + bytes([code, 1]) + kind.encode() + b"\0" + text(value)
        if signature:
            fields = aligned(fields) + b"\x08\x01g\0" + bytes([len(signature)]) + signature.encode() + b"\0"
        head = struct.pack("<4sIII", b"l\x01\x00\x01", len(body), self.serial, len(fields))
        self.socket.sendall(aligned(head + fields) + body)
        while True:
            kind, answer = self.message()
            if kind == 3:
                raise SystemExit(f"{member}: {answer}")
            if kind == 2:
                return


bus = Bus()
bus.call(BUS, "/org/freedesktop/DBus", BUS, "Hello")
session = LOGIN, "/org/freedesktop/login1/session/self", LOGIN + ".Session"
bus.call(*session, "TakeControl", "b", struct.pack("<I", 0))
card = os.stat(NODE).st_rdev
bus.call(*session, "TakeDevice", "uu", struct.pack("<II", os.major(card), os.minor(card)))
print("ready", flush=True)
while True:
    bus.message()
