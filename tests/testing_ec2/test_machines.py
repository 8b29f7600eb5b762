"""Instances run: their user data, their metadata, their ends."""

from __future__ import annotations

import gzip
import json
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path
from typing import Any

import pytest

from latent.testing.ec2 import Cloud
from tests.testing_ec2.kit import METADATA, described, launch, printed, refused, tags


def text_of(*parts: tuple[str, str]) -> str:
    whole = MIMEMultipart()
    for kind, text in parts:
        whole.attach(MIMEText(text, kind))
    return whole.as_string()


def test_a_script(cloud: Cloud, ec2: Any) -> None:
    """Its output is the console's, which EC2 tells; Python and what is installed beside it are found."""
    script = '#!/bin/sh\necho out; echo err >&2\npython -c "import attrs; print(attrs.__name__)"\nexit 3\n'
    (one,) = launch(cloud, ec2, UserData=script)
    printed(cloud, one, "finished")
    text = cloud.console(one)
    for line in ("out", "err", "attrs", "cloud-init: part-001 ended with exit code 3"):
        assert line in text.splitlines()
    assert ec2.get_console_output(InstanceId=one)["Output"] == text
    assert cloud.instance(one).state == "running"
    cloud.wait(lambda found: not found[0].running)


def test_what_is_no_script_is_told(cloud: Cloud, ec2: Any) -> None:
    (one,) = launch(cloud, ec2, UserData="hello")
    printed(cloud, one, "not known here, ignored: part-001")


def test_cloud_config(cloud: Cloud, ec2: Any) -> None:
    """Files are written where the instance, not the machine, has them; commands find them there."""
    config = """#cloud-config
bootcmd:
- echo one
write_files:
- path: /etc/latent-test/agent.env
  content: |
    GREETING=hello
- path: /usr/local/bin/greet
  permissions: '0755'
  content: |
    #!/bin/sh
    . /etc/latent-test/agent.env
    echo "$GREETING, $1"
runcmd:
- [/usr/local/bin/greet, "big world"]
- cat /etc/latent-test/agent.env | wc -l
packages: [git]
"""
    (one,) = launch(cloud, ec2, UserData=config)
    printed(cloud, one, "finished")
    lines = cloud.console(one).splitlines()
    assert [line for line in lines if not line.startswith("cloud-init")] == ["one", "hello, big world", "1"]
    assert "cloud-init: not known here, ignored: packages in the cloud-config" in lines
    assert not Path("/etc/latent-test").exists()


@pytest.mark.parametrize("packed", [False, True])
def test_multipart(cloud: Cloud, ec2: Any, packed: bool) -> None:
    """Scripts come in order, after the files; what is compressed is unpacked."""
    text = text_of(
        ("x-shellscript", "#!/bin/sh\ncat /opt/word"),
        ("cloud-config", '#cloud-config\nwrite_files: [{path: /opt/word, content: "first\\n"}]\nruncmd: [echo third]\n'),
        ("x-shellscript", "#!/bin/sh\necho second"),
    )
    (one,) = launch(cloud, ec2, UserData=gzip.compress(text.encode()) if packed else text)
    printed(cloud, one, "finished")
    assert [line for line in cloud.console(one).splitlines() if not line.startswith("cloud-init")] == ["first", "second", "third"]


def test_what_runs_at_every_boot(cloud: Cloud, ec2: Any) -> None:
    """A script runs once in the life of an instance; boothooks, bootcmd and scripts per boot run again after a stop."""
    text = text_of(
        ("cloud-boothook", "#cloud-boothook\n#!/bin/sh\necho hook"),
        ("x-shellscript", "#!/bin/sh\necho once; exec sleep 600"),
        ("x-shellscript-per-boot", "#!/bin/sh\necho boot"),
    )
    (one,) = launch(cloud, ec2, UserData=text)
    printed(cloud, one, "once")
    ec2.stop_instances(InstanceIds=[one])
    cloud.wait(lambda found: found[0].state == "stopped")
    assert cloud.processes(one) == []
    ec2.start_instances(InstanceIds=[one])
    printed(cloud, one, "finished")
    assert [line for line in cloud.console(one).splitlines() if ":" not in line] == ["hook", "boot", "once", "hook", "boot"]
    assert cloud.instance(one).booted == 2


def test_scripts_that_always_run(cloud: Cloud, ec2: Any) -> None:
    """As AWS recommends it for user data that is to run at every start."""
    text = text_of(
        ("cloud-config", "#cloud-config\ncloud_final_modules:\n- [scripts-user, always]\n"),
        ("x-shellscript", "#!/bin/sh\necho again"),
    )
    (one,) = launch(cloud, ec2, UserData=text)
    printed(cloud, one, "finished")
    ec2.reboot_instances(InstanceIds=[one])
    cloud.wait(lambda found: cloud.console(one).count("finished") == 2)
    assert cloud.console(one).splitlines().count("again") == 2


def test_hibernation(cloud: Cloud, ec2: Any) -> None:
    """Processes stand still and go on where they were."""
    script = "#!/bin/sh\nn=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done"
    with_it, without = {"HibernationOptions": {"Configured": True}}, {}
    (one,) = launch(cloud, ec2, UserData=script, **with_it)
    (other,) = launch(cloud, ec2, **without)
    printed(cloud, one, "3\n")
    cloud.wait(lambda found: found[1].state == "running")
    with refused("UnsupportedHibernationConfiguration"):
        ec2.stop_instances(InstanceIds=[other], Hibernate=True)
    before = cloud.processes(one)
    ec2.stop_instances(InstanceIds=[one], Hibernate=True)
    cloud.wait(lambda found: found[0].state == "stopped")
    count = len(cloud.console(one).split())
    ec2.start_instances(InstanceIds=[one])
    cloud.wait(lambda _: len(cloud.console(one).split()) > count + 2)
    assert cloud.console(one).split().count("1") == 1
    assert before[0] in cloud.processes(one)
    ec2.stop_instances(InstanceIds=[one], Hibernate=True)
    cloud.wait(lambda found: found[0].state == "stopped")
    ec2.terminate_instances(InstanceIds=[one])
    cloud.wait(lambda found: found[0].state == "terminated")
    assert cloud.processes(one) == []


def test_all_processes_end(cloud: Cloud, ec2: Any) -> None:
    """Those in other sessions, with another environment, that do not listen to SIGTERM, too."""
    script = """#!/bin/bash
trap '' TERM
setsid sleep 601 &
env -i /bin/sleep 602 &
env -i /usr/bin/setsid /bin/sleep 603 &
(trap '' TERM; while :; do sleep 0.01; done) &
echo ready
wait
"""
    (one,) = launch(cloud, ec2, UserData=script)
    (other,) = launch(cloud, ec2, UserData="#!/bin/sh\nexec sleep 604")
    printed(cloud, one, "ready")
    cloud.wait(lambda _: len(cloud.processes(one)) >= 6 and cloud.processes(other))
    left = cloud.processes(other)
    ec2.terminate_instances(InstanceIds=[one])
    cloud.wait(lambda found: found[0].state == "terminated")
    assert cloud.processes(one) == []
    assert cloud.processes(other) == left


def test_an_agent_hears_of_the_end(cloud: Cloud, ec2: Any) -> None:
    """SIGTERM first, as from an operating system that shuts down."""
    (one,) = launch(cloud, ec2, UserData="#!/bin/sh\ntrap 'echo bye; exit' TERM\necho ready\nwhile :; do sleep 0.02; done")
    printed(cloud, one, "ready")
    ec2.terminate_instances(InstanceIds=[one])
    printed(cloud, one, "bye")


@pytest.mark.parametrize(("behaviour", "state"), [("terminate", "terminated"), ("stop", "stopped")])
def test_it_shuts_itself_down(cloud: Cloud, ec2: Any, behaviour: str, state: str) -> None:
    """It is then stopped or terminated, as its launch says."""
    script = "#!/bin/sh\nshutdown -h now\necho not here"
    (one,) = launch(cloud, ec2, UserData=script, InstanceInitiatedShutdownBehavior=behaviour)
    cloud.wait(lambda found: found[0].state == state)
    assert described(ec2)[0]["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert cloud.processes(one) == []
    assert "not here" not in cloud.console(one)


def test_metadata(cloud: Cloud, ec2: Any) -> None:
    """What an instance knows of itself."""
    names = "instance-id ami-launch-index placement/availability-zone instance-life-cycle tags/instance/ tags/instance/a"
    script = METADATA + (
        f"for one in {names}; do echo \"$one=$(ask meta-data/$one | tr '\\n' ,)\"; done\n"
        "ask dynamic/instance-identity/document | tr -d '\\n'; echo\n"
        "ask user-data; echo\n"
    )
    options = {"HttpTokens": "required", "InstanceMetadataTags": "enabled"}
    first, second = launch(cloud, ec2, 2, UserData=script, MetadataOptions=options, TagSpecifications=tags(a="x", b="y"))
    printed(cloud, first, "finished")
    printed(cloud, second, "finished")
    lines = cloud.console(second).splitlines()
    for line in (
        f"instance-id={second}",
        "ami-launch-index=1",
        "placement/availability-zone=eu-west-1a",
        "instance-life-cycle=on-demand",
        "tags/instance/=a,b",
        "tags/instance/a=x",
    ):
        assert line in lines
    document = json.loads(next(line for line in lines if line.startswith("{")))
    assert (document["instanceId"], document["accountId"]) == (second, cloud.account_id)
    assert script.splitlines()[-1] in lines


def test_metadata_wants_a_token(cloud: Cloud, ec2: Any) -> None:
    """Where the launch requires it; the token is of this instance, and asked for by PUT with its lifetime."""
    script = METADATA + (
        "url=$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest\n"
        'code() { echo "$1=$(shift; curl -s -o /dev/null -w "%{http_code}" "$@")"; }\n'
        "code none $url/meta-data/instance-id\n"
        'code wrong -H "X-aws-ec2-metadata-token: x" $url/meta-data/instance-id\n'
        "code get $url/api/token\n"
        "code long -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 99999' $url/api/token\n"
        "code proxied -X PUT -H 'X-Forwarded-For: a' -H 'X-aws-ec2-metadata-token-ttl-seconds: 9' $url/api/token\n"
        'code right -H "X-aws-ec2-metadata-token: $token" $url/meta-data/instance-id\n'
        'code nothing -H "X-aws-ec2-metadata-token: $token" $url/meta-data/tags/instance\n'
    )
    (strict,) = launch(cloud, ec2, UserData=script, MetadataOptions={"HttpTokens": "required"})
    (lax,) = launch(cloud, ec2, UserData=script)
    printed(cloud, strict, "finished")
    printed(cloud, lax, "finished")
    codes = dict(line.split("=") for line in cloud.console(strict).splitlines() if "=" in line)
    assert codes == {
        "none": "401",
        "wrong": "401",
        "get": "405",
        "long": "400",
        "proxied": "403",
        "right": "200",
        "nothing": "404",
    }
    assert "none=200" in cloud.console(lax)


def test_a_spot_notice(cloud: Cloud, ec2: Any) -> None:
    """The metadata tell of it; then the instance is ended."""
    script = METADATA + "while ! ask meta-data/spot/instance-action | grep terminate; do sleep 0.05; done; sleep 600"
    (one,) = launch(cloud, ec2, UserData=script, InstanceMarketOptions={"MarketType": "spot"})
    cloud.wait(lambda found: found[0].running)
    cloud.spot_notice(one, 1.5)
    printed(cloud, one, '"action": "terminate"')
    cloud.wait(lambda found: found[0].state == "terminated")
    assert described(ec2)[0]["StateReason"]["Code"] == "Server.SpotInstanceTermination"


def test_what_happens_to_instances(cloud: Cloud, ec2: Any) -> None:
    """One vanishes, one crashes, one is ended by AWS."""
    script = "#!/bin/sh\nexec sleep 600"
    gone, crashed, ended = launch(cloud, ec2, 3, UserData=script)
    cloud.wait(lambda found: all(one.running for one in found))
    cloud.vanish(gone)
    cloud.crash(crashed)
    cloud.interrupt(ended)
    cloud.wait(lambda found: not any(one.running for one in found) and found[-1].state == "terminated")
    assert [one["InstanceId"] for one in described(ec2)] == [crashed, ended]
    assert [one["State"]["Name"] for one in described(ec2)] == ["running", "terminated"]
    with refused("InvalidInstanceID.NotFound"):
        ec2.describe_instances(InstanceIds=[gone])
    assert cloud.processes() == []


def test_user_data_of_a_template(cloud: Cloud, ec2: Any) -> None:
    import base64

    script = base64.b64encode(b"#!/bin/sh\necho from the template").decode()
    ec2.create_launch_template(LaunchTemplateName="t", LaunchTemplateData={"ImageId": cloud.image, "UserData": script})
    ec2.run_instances(LaunchTemplate={"LaunchTemplateName": "t"}, MinCount=1, MaxCount=1)
    printed(cloud, cloud.instances()[0].id, "from the template")
