"""Fetch source distributions, count and lint each, and merge what was found to a report."""

from latent.swarm import Workflow

PACKAGES = """
    attrs blinker certifi chardet click colorama decorator defusedxml distlib idna iniconfig itsdangerous jinja2 markdown
    markupsafe more-itertools packaging pathspec pluggy pyparsing python-dateutil pytz six sortedcontainers
    tabulate termcolor toolz wcwidth webencodings zipp
""".split()  # noqa: SIM905  a list would take a line for each

wf = Workflow("packages", max_running=40)

# The index is somebody else's: four at a time. One that is slow gets twice the time when it is tried again.
fetch = wf.array("fetch", "fetch", max_running=4, resources={"timeout": 180}, scale={"timeout": 1.0}, most={"timeout": 900})
count = wf.array("count", "count")
lint = wf.array("lint", "lint", max_attempts=1)
report = wf.array("merge", "merge").task("report")

for package in PACKAGES:
    fetched = fetch.task(package, {"package": package})
    report.after(
        count.task(package, {"package": package}).after(fetched),
        lint.task(package, {"package": package}).after(fetched),
    )
