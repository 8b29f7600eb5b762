"""An agent of the peer protocol that has lost its mind: calls in any order, with anything in them, cut short or too long."""

import grpc

from tests.fuzz.calls import CallFuzzer
from tests.gateways.woodpecker.wire import METHODS, TYPES

PARKED = ("Next", "Wait")


class PeerFuzzer(CallFuzzer):
    """``password``: a plain worker's."""

    def __init__(self, port, password, noise):
        super().__init__(port, noise)
        self._password = password
        self._sessions = []
        self._mine = None
        self._runs = []

    def next(self):
        noise = self.noise
        name = noise.pick(*METHODS) if noise.chance(0.5) else noise.pick("Next", "Next", "Init", "Update", "Log", "Done")
        if not self._sessions and noise.chance(0.9):
            name = "Auth"
        elif name in ("Auth", "UnregisterAgent") and noise.chance(0.9):
            name = "Extend"  # else there would be more sessions than anything
        self._mine = noise.random.choice(self._sessions) if self._sessions and noise.chance(0.95) else None
        return METHODS[name][0], self._request(name), self._metadata(name), name in PARKED

    def learn(self, path, answer):
        name = path.rpartition("/")[2]
        document = METHODS[name][2].FromString(answer)
        if name == "Auth":
            self._sessions = [*self._sessions[-1:], document.access_token]
        elif name == "Next" and document.HasField("workflow"):
            run = document.workflow.id
            self._runs = [*self._runs[-3:], run]
            self.noise.learn(run, f"{run}.0", f"{run}.1")

    def refused(self, path, status):
        if status is grpc.StatusCode.UNAUTHENTICATED and self.noise.chance(0.2):
            self._sessions = self._sessions[1:]

    def _metadata(self, name):
        noise = self.noise
        if name == "Auth":
            return ()
        found = [("hostname", noise.pick("host", "fuzz-peer-0", "x" * 100))]
        if self._mine is not None:
            found.append(("token", self._mine))
        elif noise.chance(0.5):
            found.append(("token", noise.text()))
        if noise.chance(0.1):
            found.append(("proto-version", noise.pick("16", "12", "-1", "sixteen", "9" * 40)))
        if name == "Done" and noise.chance(0.3):
            found += [
                ("latent-result", noise.pick("success", "timeout", "nothing")),
                ("latent-exit-code", noise.pick("0", "x", "1")),
            ]
        if noise.chance(0.02):
            found.append(("x-bin", noise.data(100)))
        return found

    def _request(self, name):
        noise = self.noise
        if name == "Auth" and noise.chance(0.8):
            return TYPES["AuthRequest"](agent_token=self._password, agent_id=noise.pick(-1, -1, 1, 2, 2**40))
        if name == "ReportHealth" and noise.chance(0.7):
            return TYPES["ReportHealthRequest"](status="I am alive!")
        request = METHODS[name][1]()
        if name == "RegisterAgent" and noise.chance(0.5):
            request.info.capacity = noise.pick(1, 3, 0, -1)
            return request
        if self._runs and noise.chance(0.4) and self._sensible(name, request, noise.random.choice(self._runs)):
            return request
        self.fill(request)
        return request

    def _sensible(self, name, request, run):
        """Whether there is something that an agent which has ``run`` would say in this call; it is said then."""
        noise = self.noise
        match name:
            case "Init":
                request.state.started = 1
            case "Update":
                request.state.step_uuid = f"{run}.0"
                request.state.exited = noise.chance(0.5)
            case "Log":
                for line in range(noise.random.randrange(1, 4)):
                    request.logEntries.add(step_uuid=f"{run}.0", line=line + noise.random.randrange(3), data=noise.data())
                return True
            case "Done":
                request.state.started, request.state.finished = 1, 2
                request.state.error = noise.pick("", "", noise.text())
            case "Wait" | "Extend":
                pass
            case _:
                return False
        request.id = run
        return True

    def scalar(self, field):
        noise = self.noise
        if self._runs and noise.chance(0.7):
            run = noise.random.choice(self._runs)
            if field.name == "id":
                return run
            if field.name == "step_uuid":
                return f"{run}.{noise.pick(0, 0, 1, 7)}"
        return super().scalar(field)
