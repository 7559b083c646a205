"""Tests of `docker-compose.yml` without Docker: it is valid, closed to the network, and uses existing settings and commands.

`tests/system/test_deployment.py` runs its commands.
"""

import json
import re
import subprocess
from typing import Any

import click
import jsonschema
import pytest
import yaml

from rater.cli import cli
from tests.deploy_files import COMPOSE, ROOT, compose_services, go_program, image_entrypoint, raters, setting_variables

SERVICES = compose_services()
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
SCHEMA = ROOT / "tests" / "unit" / "deploy" / "schemas" / "compose-spec.json"
LOADER = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2"
RUN_ONCE = {"topics", "token", "load-rates", "load-plans", "load-organizations", "publish-calls"}

each_service = pytest.mark.parametrize(("name", "service"), SERVICES.items(), ids=SERVICES)
each_of_ours = pytest.mark.parametrize(("name", "service"), OURS.items(), ids=OURS)


def test_the_file_is_valid_by_the_compose_specification() -> None:
    jsonschema.validate(yaml.safe_load(COMPOSE.read_text()), json.loads(SCHEMA.read_text()))


def test_compose_loads_the_file() -> None:
    loader = go_program("compose-go", LOADER)
    loaded = subprocess.run([loader, COMPOSE], capture_output=True, text=True, timeout=30, check=False)
    assert loaded.returncode == 0, loaded.stderr
    assert yaml.safe_load(loaded.stdout)["services"].keys() == SERVICES.keys()


def test_kafka_topics_and_worker_are_all_that_runs_without_a_profile() -> None:
    assert {name for name, service in SERVICES.items() if not service.get("profiles")} == {"kafka", "topics", "token", "worker"}


@each_service
def test_a_service_is_pinned_bounded_and_without_privileges(name: str, service: dict[str, Any]) -> None:
    tag = service["image"].rpartition(":")[2]
    assert "build" in service or re.fullmatch(r"v?\d+\.\d+\.\d+", tag), service["image"]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == ("on-failure:5" if name in RUN_ONCE else "unless-stopped")
    assert service.get("read_only", False) or name == "kafka", "only the broker's image writes configuration at its start"


@each_service
def test_a_service_is_reached_from_this_machine_alone(name: str, service: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@each_service
def test_a_service_that_goes_on_says_how_it_is(name: str, service: dict[str, Any]) -> None:
    check = service["healthcheck"]
    assert check == {"disable": True} if name in RUN_ONCE else check["test"][0] == "CMD"


@each_service
def test_what_a_service_waits_for_comes_with_its_profile(name: str, service: dict[str, Any]) -> None:
    for other, how in service.get("depends_on", {}).items():
        assert set(SERVICES[other].get("profiles", [])) <= set(service.get("profiles", []))
        assert how["condition"] == ("service_completed_successfully" if other in RUN_ONCE else "service_healthy")


@each_service
def test_the_files_and_volumes_of_a_service_are_there(name: str, service: dict[str, Any]) -> None:
    volumes = yaml.safe_load(COMPOSE.read_text())["volumes"]
    for volume in service.get("volumes", []):
        source, _, rest = volume.partition(":")
        if source.startswith("./"):
            assert (ROOT / source).exists()
            assert rest.endswith(":ro")
        else:
            assert source in volumes


@each_of_ours
def test_the_variables_are_settings(name: str, service: dict[str, Any]) -> None:
    assert raters(service["environment"]).keys() <= setting_variables()


@each_of_ours
def test_no_secret_stands_in_the_file(name: str, service: dict[str, Any]) -> None:
    named_as_files = {variable.removesuffix("_FILE") for variable in setting_variables() if variable.endswith("_FILE")}
    assert not service["environment"].keys() & named_as_files


@pytest.mark.parametrize("name", [name for name, service in OURS.items() if "entrypoint" not in service])
def test_the_command_is_one_of_the_raters(name: str) -> None:
    assert image_entrypoint() == ["rater"]
    command: click.Command = cli
    arguments = list(OURS[name]["command"])
    context = click.Context(command)
    while isinstance(command, click.Group):
        found = command.get_command(context, arguments.pop(0))
        assert found is not None, OURS[name]["command"]
        command = found
    given = [argument.replace("/samples/", f"{ROOT}/samples/") for argument in arguments]
    command.make_context(name, given, resilient_parsing=False)
