"""What the Lambda function's README says to type: run as it stands there, with AWS's own command, against moto."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from support.awslambda import LambdaServer
from support.lambdazip import ROOT, built_zip, load_build

pytestmark = pytest.mark.integration

FOLDER = ROOT / "remote" / "aws_lambda"
TOOLS = ROOT / ".tools" / "bin"
TEXT = (FOLDER / "README.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"^```sh ([a-z-]+)\n(.*?)^```$", TEXT, re.M | re.S))
POLICY = re.search(r"^```json policy\n(.*?)^```$", TEXT, re.M | re.S)
TRANSLATE = """
import json, sys
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse
class Policies:
    def load(self): return {}
json.dump(transform(yaml_parse(open(sys.argv[1]).read()), {}, Policies()), sys.stdout)
"""
"""What CloudFormation does with the template at AWS, where ``Transform`` names SAM."""


def tool(name: str) -> str:
    if not (TOOLS / name).exists():
        if os.environ.get("CI"):
            pytest.fail(f"{name} is missing: make kit")
        pytest.skip(f"{name} is missing: make kit")
    return str(TOOLS / name)


class Shell:
    """A person's shell, in a folder with the zip, whose AWS is ``endpoint``."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        tool("aws")
        self.folder = folder
        (folder / "build" / "lambda").mkdir(parents=True)
        shutil.copy(built_zip(), folder / "build" / "lambda" / "function.zip")
        self.environ = {
            "PATH": f"{TOOLS}:{os.environ['PATH']}", "HOME": str(folder), "AWS_ENDPOINT_URL": endpoint,
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_EC2_METADATA_DISABLED": "true", "SAM_CLI_TELEMETRY": "0", "LANG": "C.UTF-8", "AWS_PAGER": "",
        }  # fmt: skip

    def run(self, script: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=self.folder, env=self.environ, capture_output=True, text=True,
            timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def shell(tmp_path: Path, _moto: str) -> Iterator[Shell]:
    from urllib3 import request

    request("POST", f"{_moto}/moto-api/reset")
    yield Shell(tmp_path, _moto)
    request("POST", f"{_moto}/moto-api/reset")


@pytest.fixture
def client(_moto: str, aws_keys: None) -> Iterator[Any]:
    made = boto3.session.Session().client("lambda", endpoint_url=_moto, region_name="us-east-1")
    yield made
    made.close()


def alias(client: Any) -> str:
    return str(client.get_alias(FunctionName="packetfs-compute", Name="live")["FunctionVersion"])


def test_deploy_update_roll_back_and_stop(shell: Shell, client: Any) -> None:
    shell.run(BLOCKS["deploy"])
    found = client.get_function(FunctionName="packetfs-compute")
    function = found["Configuration"]
    assert (function["Handler"], function["Runtime"], function["Architectures"]) == (
        "handler.handler", "python3.13", ["arm64"],
    )  # fmt: skip
    assert (function["MemorySize"], function["Timeout"], function["PackageType"]) == (1769, 900, "Zip")
    assert function["CodeSize"] == built_zip().stat().st_size
    assert found["Concurrency"]["ReservedConcurrentExecutions"] == 100
    assert alias(client) == "1"

    with (shell.folder / "build" / "lambda" / "function.zip").open("ab") as file:
        file.write(b"\0")  # another zip
    shell.run(BLOCKS["update"])
    assert alias(client) == "2"
    versions = client.list_versions_by_function(FunctionName="packetfs-compute")["Versions"]
    hashes = {one["Version"]: one["CodeSha256"] for one in versions}
    assert hashes["1"] != hashes["2"]

    assert hashes["1"] in shell.run(BLOCKS["roll-back"])
    assert alias(client) == "1"

    shell.run(BLOCKS["stop"])
    found = client.get_function_concurrency(FunctionName="packetfs-compute")
    assert found["ReservedConcurrentExecutions"] == 0


def test_verify(lambda_server: LambdaServer, tmp_path: Path) -> None:
    """moto runs no function: this is asked of the one that really runs."""
    shell = Shell(tmp_path, lambda_server.url)
    said = shell.run(BLOCKS["verify"])
    assert '"status": "healthy"' in said
    assert json.loads((tmp_path / "answer.json").read_text("utf-8"))["region"] == "us-east-1"


def test_what_a_dispatcher_may_do(shell: Shell) -> None:
    assert POLICY is not None
    (shell.folder / "policy.json").write_text(POLICY[1], "utf-8")
    shell.run(BLOCKS["policy"])
    (statement,) = json.loads(POLICY[1])["Statement"]
    assert statement["Action"] == "lambda:InvokeFunction"
    assert statement["Resource"].endswith(":function:packetfs-compute:live")


def test_every_command_of_the_readme_is_run_here() -> None:
    assert set(BLOCKS) == {"deploy", "update", "verify", "roll-back", "stop", "policy"}


@pytest.mark.parametrize("command", [["sam", "validate", "--lint", "--template"], ["cfn-lint"]], ids=lambda one: one[0])
def test_the_template_is_valid(tmp_path: Path, command: list[str]) -> None:
    environ = {**os.environ, "HOME": str(tmp_path), "SAM_CLI_TELEMETRY": "0", "AWS_DEFAULT_REGION": "us-east-1"}
    done = subprocess.run(
        [tool(command[0]), *command[1:], str(FOLDER / "template.yaml")], env=environ, capture_output=True, text=True,
        timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def plain(shell: Shell, template: str) -> dict[str, Any]:
    """Return a SAM template as CloudFormation runs it."""
    done = subprocess.run(
        [tool("python"), "-W", "ignore", "-c", TRANSLATE, template],
        cwd=shell.folder, env=shell.environ, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.filterwarnings("ignore:Tried to parse AWS.:UserWarning")  # moto knows no alias and no alarm in a template
def test_the_template_deploys(shell: Shell, client: Any) -> None:
    """As ``sam deploy`` does it: the zip into a bucket, the transform, a change set."""
    folder = shell.folder / "remote" / "aws_lambda"
    folder.mkdir(parents=True)
    shutil.copy(FOLDER / "template.yaml", folder)
    shell.run(
        "aws s3 mb s3://zips\n"
        "sam package --template-file remote/aws_lambda/template.yaml --s3-bucket zips --output-template-file packaged.yaml"
    )
    (shell.folder / "plain.json").write_text(json.dumps(plain(shell, "packaged.yaml")), "utf-8")
    shell.run(
        "aws cloudformation deploy --template-file plain.json --stack-name packetfs --capabilities CAPABILITY_IAM "
        "--parameter-overrides ReservedConcurrency=7 Timeout=60"
    )
    found = client.get_function(FunctionName="packetfs-compute")
    function = found["Configuration"]
    assert (function["Runtime"], function["Timeout"], function["MemorySize"]) == ("python3.13", 60, 1769)
    assert function["CodeSize"] == built_zip().stat().st_size
    assert found["Concurrency"]["ReservedConcurrentExecutions"] == 7


@pytest.fixture
def resources(shell: Shell) -> dict[str, list[dict[str, Any]]]:
    """The resources of the template as CloudFormation sees them, by type."""
    # The transform takes no CodeUri but one in a bucket, where `sam package` puts the zip.
    text = (
        (FOLDER / "template.yaml").read_text("utf-8").replace("../../build/lambda/function.zip", "s3://zips/function")
    )
    (shell.folder / "template.yaml").write_text(text, "utf-8")
    found: dict[str, list[dict[str, Any]]] = {}
    for one in plain(shell, "template.yaml")["Resources"].values():
        found.setdefault(one["Type"].removeprefix("AWS::"), []).append(one)
    return found


def test_the_role_may_write_its_log_and_nothing_else(resources: dict[str, list[dict[str, Any]]]) -> None:
    (role,) = [one["Properties"] for one in resources["IAM::Role"]]
    assert "ManagedPolicyArns" not in role
    (statement,) = [one for policy in role["Policies"] for one in policy["PolicyDocument"]["Statement"]]
    assert statement["Action"] == ["logs:CreateLogStream", "logs:PutLogEvents"]
    assert statement["Resource"]["Fn::Sub"].endswith(":log-group:/aws/lambda/${FunctionName}:*")


def test_what_the_template_makes(resources: dict[str, list[dict[str, Any]]]) -> None:
    """No URL, no API, no permission for anyone, no VPC; alarms where there is somebody to tell."""
    assert {kind: len(found) for kind, found in resources.items()} == {
        "IAM::Role": 1, "Lambda::Alias": 1, "Lambda::Function": 1, "Lambda::Version": 1, "Logs::LogGroup": 1,
        "CloudWatch::Alarm": 2,
    }  # fmt: skip
    function = resources["Lambda::Function"][0]["Properties"]
    assert "VpcConfig" not in function
    assert function["Architectures"] == [{"Ref": "Architecture"}]
    assert function["ReservedConcurrentExecutions"] == {"Ref": "ReservedConcurrency"}
    assert resources["Lambda::Alias"][0]["Properties"]["Name"] == "live"
    assert {one["Condition"] for one in resources["CloudWatch::Alarm"]} == {"HasAlarms"}
    assert resources["Logs::LogGroup"][0]["Properties"]["RetentionInDays"] == {"Ref": "LogRetentionDays"}


def test_the_default_of_the_template_is_the_builds() -> None:
    text = (FOLDER / "template.yaml").read_text("utf-8")
    assert f"Default: python{load_build().DEFAULT_PYTHON}\n" in text
