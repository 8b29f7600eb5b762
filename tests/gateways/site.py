"""A whole controller in the test's reactor."""


class Site:
    """It can be stopped, and started again on the same state. ``master``: the text of its master.cfg."""

    def __init__(self, folder, master):
        self.folder = folder
        self.master = folder / "master.cfg"
        self.master.write_text(master)
        self.state = folder / "state"
        self.assembly = None

    async def start(self):
        # Here, because pytest-twisted has installed the reactor by now.
        from twisted.internet import reactor

        from latent.cli.assembly import Assembly

        self.assembly = Assembly(self.master, self.state, reactor=reactor, ended=lambda: None)
        await self.assembly.start()

    async def stop(self, fast=True):
        assembly, self.assembly = self.assembly, None
        if assembly is not None:
            await assembly.stop(fast=fast)

    @property
    def controller(self):
        return self.assembly.controller
