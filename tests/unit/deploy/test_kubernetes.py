"""Tests of `deploy/kubernetes` without a cluster: kustomize builds it; each object fits its schema and the rater's needs."""

import json
import re
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from rater.cli.worker import worker
from rater.kafka.topics import load_topics
from rater.settings import Settings
from tests.deploy_files import KUBERNETES, built, image_entrypoint, pods, raters, schemas_of, setting_variables

OVERLAY = "overlays/example"
#: An older Kubernetes that many clusters still run, and a current one.
VERSIONS = ("1.31", "1.34")
PROBE = ["python", "-m", "rater.ops.probe"]
STATEFUL = ("rater-rating", "rater-agents")


def the(kind: str, name: str) -> dict[str, Any]:
    """An object of the example overlay, by kind and name."""
    (found,) = (made for made in built(OVERLAY) if (made["kind"], made["metadata"]["name"]) == (kind, name))
    return found


def settings_of(pod: dict[str, Any]) -> dict[str, str]:
    """A pod's environment variables, from ConfigMaps and from the manifest."""
    maps = {made["metadata"]["name"]: made["data"] for made in built(OVERLAY) if made["kind"] == "ConfigMap"}
    container = pod["containers"][0]
    found: dict[str, str] = {}
    for source in container["envFrom"]:
        found |= maps[source["configMapRef"]["name"]]
    return found | {variable["name"]: variable.get("value", "") for variable in container.get("env", [])}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", ["base", OVERLAY])
def test_every_object_is_valid_by_kubernetes_own_schemas(overlay: str, version: str) -> None:
    own = [made for made in built(overlay) if not re.search(r"keda\.sh|coreos\.com", made["apiVersion"])]
    assert len(own) >= 12
    for made in own:
        kubernetes_validate.validate(made, version, strict=True)


def test_what_operators_bring_is_valid_by_their_schemas() -> None:
    foreign = [made for made in built(OVERLAY) if re.search(r"keda\.sh|coreos\.com", made["apiVersion"])]
    assert {made["kind"] for made in foreign} == {"ScaledObject", "TriggerAuthentication", "PodMonitor"}
    for made in foreign:
        schema = json.loads(schemas_of(made["kind"], made["apiVersion"]).read_text())
        jsonschema.validate(made, closed(schema))


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema, but it refuses unknown fields. An API server would drop them without a message."""
    if schema.get("type") == "object" and "properties" in schema:
        known = {name: closed(inner) for name, inner in schema["properties"].items()}
        return schema | {"properties": known, "additionalProperties": False} if known.keys() - {"metadata"} else schema
    if schema.get("type") == "array":
        return schema | {"items": closed(schema["items"])}
    return schema


def test_a_field_that_an_operator_does_not_know_is_noticed() -> None:
    scaled = the("ScaledObject", "rater-rating")
    misspelt = scaled | {"spec": scaled["spec"] | {"maxReplicas": 4}}
    with pytest.raises(jsonschema.ValidationError, match="maxReplicas"):
        jsonschema.validate(misspelt, closed(json.loads(schemas_of("ScaledObject", "keda.sh/v1alpha1").read_text())))


def test_every_variable_is_a_setting_and_its_value_is_taken() -> None:
    for name, pod in pods(built(OVERLAY)):
        variables = settings_of(pod)
        assert raters(variables).keys() <= setting_variables(), name
        plain = {variable: value for variable, value in raters(variables).items() if value and not variable.endswith("_FILE")}
        fields = {variable.removeprefix("RATER_").lower(): value for variable, value in plain.items()}
        secrets = {name.removeprefix("RATER_").removesuffix("_FILE").lower() for name in variables if name.endswith("_FILE")}
        given = {name: "x" * 16 for name in secrets if name in Settings.model_fields}
        Settings.model_validate(fields | given)


def test_the_pods_are_restricted_and_have_no_token_of_the_cluster() -> None:
    assert the("Namespace", "rater")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for _, pod in pods(built(OVERLAY)):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        assert "command" not in container, "the image's entry point must start it"


@pytest.mark.parametrize("name", STATEFUL)
def test_a_worker_is_started_by_a_command_there_is_and_probed_from_inside(name: str) -> None:
    container = the("StatefulSet", name)["spec"]["template"]["spec"]["containers"][0]
    assert image_entrypoint() == ["rater"]
    assert container["args"][0] == "worker"
    worker.make_context("worker", container["args"][1:])
    for probe, what in (("startupProbe", "livez"), ("livenessProbe", "livez"), ("readinessProbe", "readyz")):
        assert container[probe]["exec"]["command"] == [*PROBE, what]
        assert container[probe]["timeoutSeconds"] > 4, "must be longer than the probe's own timeout"


@pytest.mark.parametrize("name", STATEFUL)
def test_a_worker_is_a_static_member_under_its_pods_name_with_a_disk_of_its_own(name: str) -> None:
    made = the("StatefulSet", name)["spec"]
    pod = made["template"]["spec"]
    (identity,) = (variable for variable in pod["containers"][0]["env"] if variable["name"] == "RATER_INSTANCE_ID")
    assert identity["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts[made["volumeClaimTemplates"][0]["metadata"]["name"]] == settings_of(pod)["RATER_DATA_DIR"]


@pytest.mark.parametrize("name", STATEFUL)
def test_a_worker_has_the_time_to_end_by_itself(name: str) -> None:
    pod = the("StatefulSet", name)["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] * 1000 > int(settings_of(pod)["RATER_SHUTDOWN_MS_MAX"])


def test_each_pod_is_given_the_secrets_its_settings_look_for_and_no_others() -> None:
    for name, pod in pods(built(OVERLAY)):
        (folder,) = (mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "secrets")
        (secret,) = (volume["secret"] for volume in pod["volumes"] if volume["name"] == "secrets")
        wanted = {value for variable, value in settings_of(pod).items() if variable.endswith("_FILE")}
        assert {f"{folder}/{item['path']}" for item in secret["items"]} == wanted, name
        assert secret["defaultMode"] == 0o440


def test_no_secret_is_in_the_manifests() -> None:
    assert not [made for made in built(OVERLAY) if made["kind"] == "Secret"]
    named_as_files = {variable.removesuffix("_FILE") for variable in setting_variables() if variable.endswith("_FILE")}
    for _, pod in pods(built(OVERLAY)):
        assert not settings_of(pod).keys() & named_as_files


@pytest.mark.parametrize("kind", ["StatefulSet", "PodDisruptionBudget", "Service"])
def test_what_selects_pods_finds_them(kind: str) -> None:
    labels = [the("StatefulSet", name)["spec"]["template"]["metadata"]["labels"] for name in STATEFUL]
    for made in (made for made in built(OVERLAY) if made["kind"] == kind):
        selector = made["spec"]["selector"]
        wanted = selector if kind == "Service" else selector["matchLabels"]
        assert [wanted.items() <= label.items() for label in labels].count(True) == 1


def test_every_pod_is_shut_off_but_for_what_is_allowed() -> None:
    deny = the("NetworkPolicy", "rater-deny")["spec"]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert not deny.keys() & {"ingress", "egress"}
    for made in built(OVERLAY):
        if made["kind"] in {"StatefulSet", "Job"}:
            assert deny["podSelector"]["matchLabels"].items() <= made["spec"]["template"]["metadata"]["labels"].items()
    outside = the("NetworkPolicy", "rater-outside")["spec"]
    assert outside["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "agents"
    assert [port["port"] for port in outside["egress"][0]["ports"]] == [443, 587]


def test_the_port_is_one_everywhere() -> None:
    for name in STATEFUL:
        pod = the("StatefulSet", name)["spec"]["template"]["spec"]
        assert pod["containers"][0]["ports"] == [{"name": "http", "containerPort": int(settings_of(pod)["RATER_HTTP_PORT"])}]
    watched = the("NetworkPolicy", "rater-watched")["spec"]["ingress"][0]
    assert [port["port"] for port in watched["ports"]] == [9480]


def test_keda_goes_by_the_raters_own_group_and_topic_and_never_beyond_its_partitions() -> None:
    scaled = the("ScaledObject", "rater-rating")["spec"]
    settings = settings_of(the("StatefulSet", "rater-rating")["spec"]["template"]["spec"])
    topics = load_topics(settings.get("RATER_TOPIC_PREFIX", ""))
    trigger = scaled["triggers"][0]["metadata"]
    assert trigger["topic"] == topics.cdr
    assert trigger["consumerGroup"] == settings.get("RATER_APP_ID", Settings.model_fields["app_id"].default)
    assert trigger["bootstrapServers"] == settings["RATER_BOOTSTRAP"]
    assert scaled["maxReplicaCount"] == int(settings["RATER_PARTITIONS"]) == topics.account_partitions
    assert "replicas" not in the("StatefulSet", "rater-rating")["spec"], "applying it again must not reset KEDA's number"


def test_scaling_down_waits_out_a_session_many_times_over() -> None:
    behaviour = the("ScaledObject", "rater-rating")["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    settings = settings_of(the("StatefulSet", "rater-rating")["spec"]["template"]["spec"])
    session_s = int(settings["RATER_SESSION_TIMEOUT_MS"]) / 1000
    assert behaviour["scaleDown"]["stabilizationWindowSeconds"] >= 20 * session_s
    assert behaviour["scaleDown"]["policies"][0]["periodSeconds"] >= 20 * session_s


def test_every_file_is_part_of_a_kustomization() -> None:
    for folder in (file.parent for file in KUBERNETES.rglob("kustomization.yaml")):
        text = (folder / "kustomization.yaml").read_text()
        assert [file.name for file in folder.iterdir() if file.is_file() and file.name not in text] == ["kustomization.yaml"]
