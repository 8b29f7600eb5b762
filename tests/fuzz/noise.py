"""What agents should never say, drawn from one source of randomness, so that a seed says it all again."""

import random

TEXTS = (
    "",
    " ",
    "\0",
    "x" * 300,
    "é\u2028\ud7ff\U0010ffff",
    "-1",
    "0",
    "1.0",
    "1e9",
    "9223372036854775807",
    "9223372036854775808",
    "9" * 5000,
    "1.",
    ".1",
    "999999999999999999999.0",
    "²",
    "../../etc/passwd",
    "'; DROP TABLE builds; --",
    "%(prop:x)s",
    "None",
    "*",
    "!x",
)
NUMBERS = (0, 1, -1, 2, 7, 127, 128, 255, 2**15, 2**31 - 1, -(2**31), 2**31, 2**53, 2**63 - 1, -(2**63))


class Noise:
    """``known``: what makes sense somewhere, and so may be said in the wrong place."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.known = []

    def learn(self, *values):
        self.known = [*self.known[-200:], *values]

    def chance(self, share):
        return self.random.random() < share

    def pick(self, *values):
        return self.random.choice(values)

    def text(self):
        if self.known and self.chance(0.5):
            return str(self.random.choice(self.known))
        if self.chance(0.3):
            return "".join(chr(self.random.choice((self.random.randrange(128), self.random.randrange(0xD800)))) for _ in range(9))
        return self.random.choice(TEXTS)

    def number(self, limit=2**63):
        number = self.random.choice(NUMBERS) if self.chance(0.6) else self.random.randrange(-limit, limit)
        return number if -limit <= number < limit else limit - 1

    def data(self, most=200):
        return self.random.randbytes(self.random.randrange(most))

    def damaged(self, data):
        """``data`` as it never should have been sent."""
        data = bytearray(data)
        match self.random.randrange(6):
            case 0:
                del data[self.random.randrange(len(data) + 1) :]
            case 1 if data:
                for _ in range(self.random.randrange(1, 5)):
                    data[self.random.randrange(len(data))] = self.random.randrange(256)
            case 2:
                at = self.random.randrange(len(data) + 1)
                data[at:at] = self.data(20)
            case 3:
                data += bytes(data)
            case 4:
                data = bytearray(self.data(300))
            case _ if data:
                at = self.random.randrange(len(data))
                del data[at : at + self.random.randrange(1, 9)]
        return bytes(data)

    def value(self, depth=3):
        """Something of any shape."""
        kind = self.random.randrange(9 if depth else 6)
        match kind:
            case 0:
                return None
            case 1:
                return self.chance(0.5)
            case 2:
                return self.number()
            case 3:
                return self.pick(0.0, -1.5, float("inf"), float("nan"), 1e308)
            case 4:
                return self.text()
            case 5:
                return self.data(50)
            case 6 | 7:
                return [self.value(depth - 1) for _ in range(self.random.randrange(4))]
            case _:
                return {self.pick(self.text(), self.text(), self.number()): self.value(depth - 1) for _ in range(3)}
