"""The names of a Compose network: one name, the addresses of those who bear it (RFC 1035)."""

import socket
import struct
import threading


def name_in(question):
    labels, at = [], 12  # bytes of the head
    while size := question[at]:
        labels.append(question[at + 1 : at + 1 + size].decode())
        at += 1 + size
    return ".".join(labels)


class DnsServer(threading.Thread):
    """Answers every question for an address with all of `addresses`, until it is closed."""

    def __init__(self, *addresses):
        super().__init__(daemon=True)
        self.addresses, self.asked = addresses, set()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]

    def run(self):
        while True:
            question, asker = self._socket.recvfrom(512)
            if not question:
                return
            self.asked.add(name_in(question))
            self._socket.sendto(self._answer(question), asker)

    def _answer(self, question):
        head = question[:2] + struct.pack("!HHHHH", 0x8180, 1, len(self.addresses), 0, 0)
        about = struct.pack("!HHHIH", 0xC00C, 1, 1, 1, 4)  # that name, an address, for 1 second
        found = b"".join(about + socket.inet_aton(address) for address in self.addresses)
        return head + question[12:] + found

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", ("127.0.0.1", self.port))
        self.join(10)
        self._socket.close()
