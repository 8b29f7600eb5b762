"""A bot that has lost its mind."""

import grpc

from tests.fuzz.calls import CallFuzzer
from tests.gateways.bots.client import BOTS, EXECUTION, OK, M, session_of

CREATE, UPDATE = f"/{BOTS}.Bots/CreateBotSession", f"/{BOTS}.Bots/UpdateBotSession"
PENDING, ACTIVE, COMPLETED = 1, 2, 4
OTHERS = {
    f"/{BOTS}.Bots/PostBotEventTemp": "PostBotEventTempRequest",
    f"/{EXECUTION}.Capabilities/GetCapabilities": "GetCapabilitiesRequest",
}


class BotsFuzzer(CallFuzzer):
    """``password``: a plain worker's."""

    waits = (0.001, 0.05, 0.5, 2.0)  # the next call of the same bot ends the one before

    def __init__(self, port, password, noise):
        super().__init__(port, noise)
        self._password = password
        self._sessions = []

    def next(self):
        noise = self.noise
        if noise.chance(0.05):
            path = noise.pick(*OTHERS)
            request = M[OTHERS[path]]()
            self.fill(request)
            return path, request, self._metadata(), False
        if not self._sessions or noise.chance(0.03):
            request = M["CreateBotSessionRequest"](parent="", bot_session=session_of("fuzz-bot", OK))
            if noise.chance(0.3):
                self.fill(request)
            return CREATE, request, self._metadata(), True
        return UPDATE, self._update(), self._metadata(), True

    def learn(self, path, answer):
        if path in (CREATE, UPDATE):
            session = M["BotSession"].FromString(answer)
            self._sessions = [*self._sessions[-2:], session]
            self.noise.learn(session.name, session.bot_id, *(lease.id for lease in session.leases))

    def refused(self, path, status):
        if status in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.DATA_LOSS) and self.noise.chance(0.1):
            self._sessions = self._sessions[1:]

    def _update(self):
        noise = self.noise
        session = M["BotSession"]()
        session.CopyFrom(noise.random.choice(self._sessions[-2:]))
        session.status = OK if noise.chance(0.9) else noise.pick(0, 2, 3, 4, 99, -1)
        if noise.chance(0.6):
            # What its bot would say, or has said: the answer to another call may have come in between.
            for lease in session.leases:
                lease.state = ACTIVE if lease.state == PENDING else COMPLETED
            return M["UpdateBotSessionRequest"](name=session.name, bot_session=session)
        for lease in session.leases:
            lease.state = noise.pick(PENDING, ACTIVE, ACTIVE, COMPLETED, COMPLETED, 5, 0, 99)
            lease.status.code = noise.pick(0, 1, 13, -5, 99)
            if noise.chance(0.3):
                self.fill(lease)
        if noise.chance(0.2):
            self.fill(session.leases.add())
        if noise.chance(0.1):
            self.fill(session)
        return M["UpdateBotSessionRequest"](name=session.name if noise.chance(0.95) else noise.text(), bot_session=session)

    def _metadata(self):
        noise = self.noise
        if noise.chance(0.9):
            return [("authorization", f"Bearer {self._password}")]
        return [("authorization", noise.pick("Bearer", "Basic x", f"Bearer {noise.text()}")), ("x-bin", noise.data(50))]
