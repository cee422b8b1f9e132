"""What schemas cannot say: objects find each other, pods are restricted, probes mean it, variables are settings."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from memory3 import security, semconv
from tests.arch.test_settings import settings_of, variable
from tests.helpers.prometheus_names import base_name
from tests.helpers.promql import selectors
from tools import chart

OUTSIDE = {
    "bring-your-own": {"Secret": {"milvus-token", "s3-keys"}, "PersistentVolumeClaim": {"models"}},
    "cpu": {"Secret": {"store"}, "PersistentVolumeClaim": {"handbook", "ingest-progress"}},
    "gpu": {"Secret": {"store"}},
    "laptop": {},
    "production": {
        "Secret": {"milvus-token", "s3-keys", "company-ca"}
        | {"memory3-access", "memory3-decoder-token", "memory3-ingest-token"},
        "PersistentVolumeClaim": {"models"},
    },
}
"""What an example says its user brings."""

PORTS = {"retrieval": 7301, "memory": 7302, "decoder": 7303}
HEALTH_PORT = 7310


@pytest.fixture(params=chart.EXAMPLES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@functools.cache
def rendered(name: str) -> list[dict[str, Any]]:
    return chart.render(chart.example(name))


@pytest.fixture
def objects(name: str) -> list[dict[str, Any]]:
    return rendered(name)


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [item for item in objects if item["kind"] == kind]


def component(item: dict[str, Any]) -> str:
    return str(item["metadata"]["labels"]["app.kubernetes.io/component"]).removeprefix("memory3-")


def selected(objects: list[dict[str, Any]], labels: dict[str, str]) -> list[dict[str, Any]]:
    return [
        template
        for _, template in chart.pod_templates(objects)
        if labels.items() <= template["metadata"].get("labels", {}).items()
    ]


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item.get("value", "") for item in container.get("env", [])}


def test_services_find_pods_and_their_ports(objects: list[dict[str, Any]]) -> None:
    for service in of_kind(objects, "Service"):
        templates = selected(objects, service["spec"]["selector"])
        assert templates, service["metadata"]["name"]
        for template in templates:
            ports = {port["name"] for item in chart.containers(template) for port in item.get("ports", [])}
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_selectors_match_the_pods_of_their_workload(objects: list[dict[str, Any]]) -> None:
    for item in objects:
        if item["kind"] in ("Deployment", "StatefulSet"):
            labels = item["spec"]["template"]["metadata"]["labels"]
            assert item["spec"]["selector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("kind", ["PodDisruptionBudget", "NetworkPolicy", "PodMonitor"])
def test_what_selects_selects_something(objects: list[dict[str, Any]], kind: str) -> None:
    for item in of_kind(objects, kind):
        selector = item["spec"].get("selector") or item["spec"]["podSelector"]
        assert selected(objects, selector["matchLabels"]), item["metadata"]["name"]


def test_scalers_ask_for_metrics_that_the_tiers_export(objects: list[dict[str, Any]]) -> None:
    gauges = {base_name(*item[:2], "up-down") for item in vars(semconv).values() if isinstance(item, tuple)}
    for item in of_kind(objects, "ScaledObject"):
        for trigger in item["spec"]["triggers"]:
            for selector in selectors(trigger["metadata"]["query"]):
                assert selector.name in gauges
                wanted = {
                    ("job", "=", f"memory3/{component(item)}"),
                    ("instance", "=~", f"{item['metadata']['name']}-.+"),
                }
                assert set(selector.matchers) == wanted


def test_scalers_name_a_workload_that_sets_no_replicas(objects: list[dict[str, Any]]) -> None:
    workloads = {(item["kind"], item["metadata"]["name"]): item for item in objects}
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for item in of_kind(objects, kind):
            target = item["spec"]["scaleTargetRef"]
            assert "replicas" not in workloads[target["kind"], target["name"]]["spec"]


def references(template: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Secrets, config maps, claims and service accounts a pod needs."""
    spec = template["spec"]
    yield "ServiceAccount", spec["serviceAccountName"]
    for volume in spec.get("volumes", []):
        match volume:
            case {"secret": {"secretName": found}}:
                yield "Secret", found
            case {"configMap": {"name": found}}:
                yield "ConfigMap", found
            case {"persistentVolumeClaim": {"claimName": found}}:
                yield "PersistentVolumeClaim", found
    for container in chart.containers(template):
        for item in container.get("env", []):
            for kind, key in (("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef")):
                if found := item.get("valueFrom", {}).get(key):
                    yield kind, found["name"]


def test_what_a_pod_refers_to_exists(name: str, objects: list[dict[str, Any]]) -> None:
    there = {(item["kind"], item["metadata"]["name"]) for item in objects}
    there |= {(kind, item) for kind, items in OUTSIDE[name].items() for item in items}
    there |= {("Secret", item["spec"]["secretName"]) for item in of_kind(objects, "Certificate")}
    for title, template in chart.pod_templates(objects):
        assert set(references(template)) - there == set(), title


def test_mounts_have_volumes(objects: list[dict[str, Any]]) -> None:
    claims = {
        f"{item['kind']}/{item['metadata']['name']}": {
            one["metadata"]["name"] for one in item["spec"].get("volumeClaimTemplates", [])
        }
        for item in of_kind(objects, "StatefulSet")
    }
    for title, template in chart.pod_templates(objects):
        volumes = {volume["name"] for volume in template["spec"]["volumes"]} | claims.get(title, set())
        mounted = {mount["name"] for item in chart.containers(template) for mount in item["volumeMounts"]}
        assert mounted <= volumes, title


def test_pods_are_restricted(objects: list[dict[str, Any]]) -> None:
    for title, template in chart.pod_templates(objects):
        spec = template["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), title
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not [volume for volume in spec["volumes"] if "hostPath" in volume]
        for container in chart.containers(template):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert "privileged" not in security
            assert "hostPort" not in json.dumps(container)


def test_only_the_head_of_ray_may_speak_to_kubernetes(objects: list[dict[str, Any]]) -> None:
    may = {
        title for title, template in chart.pod_templates(objects) if template["spec"]["automountServiceAccountToken"]
    }
    assert {title.rpartition("/")[2] for title in may} <= {"head"}


def test_resources_are_set_and_limits_are_not_below_requests(objects: list[dict[str, Any]]) -> None:
    for title, template in chart.pod_templates(objects):
        for container in chart.containers(template):
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), title
            assert "memory" in container["resources"]["limits"], title


def test_servers_have_probes_that_ask_the_health_port(objects: list[dict[str, Any]]) -> None:
    servers = 0
    for title, template in chart.pod_templates(objects):
        container = template["spec"]["containers"][0]
        if container["name"] not in PORTS:
            continue
        servers += 1
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports["health"] == HEALTH_PORT, title
        assert container["readinessProbe"]["grpc"] == {"port": HEALTH_PORT}
        assert container["livenessProbe"]["grpc"] == {"port": HEALTH_PORT, "service": "alive"}
        assert container["startupProbe"]["grpc"] == {"port": HEALTH_PORT, "service": "alive"}
        prefix = f"MEMORY3_{container['name'].upper()}_"
        env = environment(container)
        assert env[f"{prefix}HEALTH_PORT"] == str(HEALTH_PORT)
        assert env[f"{prefix}PORT"] == str(ports["grpc"]) == str(PORTS[container["name"]])
        assert env[f"{prefix}HOST"] == "0.0.0.0"
    assert servers == 3


def test_the_default_ports_are_those_of_the_services() -> None:
    for service, port in PORTS.items():
        (cls,) = settings_of(service)
        assert cls.model_fields["port"].default == port


def test_a_pod_is_given_time_to_drain(objects: list[dict[str, Any]]) -> None:
    longest = 0
    for title, template in chart.pod_templates(objects):
        container = template["spec"]["containers"][0]
        if container["name"] in PORTS:
            drain = int(environment(container)[f"MEMORY3_{container['name'].upper()}_DRAIN_SECONDS"])
            wait = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            assert template["spec"]["terminationGracePeriodSeconds"] > wait + drain, title
            longest = max(longest, drain) if container["name"] == "decoder" else longest
    for title, template in chart.pod_templates(objects):
        if template["spec"]["containers"][0]["name"] in ("ray-head", "ray-worker"):
            # Fronts drain first: what they drain runs in the workers.
            assert template["spec"]["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] >= longest, title


def known_variables() -> set[str]:
    """Every environment variable a process of ours reads."""
    found = {
        variable(cls, field_name, field)
        for service in (*PORTS, "ingest")
        for cls in settings_of(service)
        for field_name, field in cls.model_fields.items()
    }
    # How the command line and ingest call the tiers.
    return found | {*security._VARIABLES.values(), security._TOKEN_PLAIN}


def test_every_variable_is_a_setting_and_stands_once(objects: list[dict[str, Any]]) -> None:
    known = known_variables()
    for title, template in chart.pod_templates(objects):
        for container in chart.containers(template):
            names = [item["name"] for item in container.get("env", [])]
            assert len(names) == len(set(names)), title
            assert {item for item in names if item.startswith("MEMORY3_")} - known == set(), title


def test_settings_reach_the_process_as_they_were_given() -> None:
    values = chart.example("production")
    values["components"]["memory"]["settings"] = {"RAM_BYTES": 17179869184, "READ_TIMEOUT_SECONDS": 2.5}
    (memory,) = [item for item in of_kind(chart.render(values), "Deployment") if component(item) == "memory"]
    env = environment(memory["spec"]["template"]["spec"]["containers"][0])
    assert env["MEMORY3_MEMORY_RAM_BYTES"] == "17179869184"
    assert env["MEMORY3_MEMORY_READ_TIMEOUT_SECONDS"] == "2.5"


def test_addresses_name_services_of_the_release(objects: list[dict[str, Any]]) -> None:
    services = {f"{item['metadata']['name']}.prod.svc": item["spec"] for item in of_kind(objects, "Service")}
    dialled = {"MEMORY3_RETRIEVAL", "MEMORY3_MEMORY", "MEMORY3_DECODER"}
    dialled |= {"MEMORY3_DECODER_RETRIEVAL_ADDRESS", "MEMORY3_DECODER_MEMORY_ADDRESS"}
    for _, template in chart.pod_templates(objects):
        for container in chart.containers(template):
            env = environment(container)
            for address in (env[key] for key in dialled & env.keys()):
                host, _, port = address.removeprefix("rendezvous:").rpartition(":")
                assert int(port) in {item["port"] for item in services[host]["ports"]}
                assert address.startswith("rendezvous:") == (services[host].get("clusterIP") == "None")


def test_ray_deploys_the_application_the_fronts_wait_for() -> None:
    ray = of_kind(chart.render(chart.example("gpu")), "RayService")[0]
    config = yaml.safe_load(ray["spec"]["serveConfigV2"])
    (application,) = config["applications"]
    assert application["name"] == "memory3-decoder"
    assert application["import_path"] == "services.decoder.app:build"
    (worker,) = application["deployments"]
    assert worker["ray_actor_options"] == {"num_cpus": 4, "num_gpus": 1}
    assert worker["autoscaling_config"]["max_replicas"] == 8
    groups = {group["groupName"]: group for group in ray["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    assert groups.keys() == {"front", "gpu"}
    limits = groups["gpu"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert (float(limits["cpu"]), limits["nvidia.com/gpu"]) == (4, 1)
    assert groups["front"]["rayStartParams"]["num-cpus"] == "0"


def test_nothing_secret_stands_outside_of_secrets() -> None:
    values = chart.example("cpu")
    values["store"] = {"s3": {"accessKey": "key-id", "secretKey": "very-secret"}}
    values["index"] = {"server": {"uri": "http://m:19530", "token": "also-secret"}}
    for item in chart.render(values):
        if item["kind"] != "Secret":
            assert "very-secret" not in json.dumps(item)
            assert "also-secret" not in json.dumps(item)


def test_with_tls_every_server_and_caller_has_certificates() -> None:
    objects = chart.render(chart.example("production"))
    for title, template in chart.pod_templates(objects):
        container = template["spec"]["containers"][0]
        env = environment(container)
        if container["name"] in PORTS:
            prefix = f"MEMORY3_{container['name'].upper()}_"
            assert env[f"{prefix}TLS_CLIENT_CA"] == "/etc/memory3/tls/ca.crt", title
            assert env[f"{prefix}ACCESS_FILE"] == "/etc/memory3/access/access.jsonl", title
        if container["name"] in ("decoder", "ray-worker"):
            assert env["MEMORY3_DECODER_TOKEN_FILE"] == "/etc/memory3/token/token", title
            assert env["MEMORY3_DECODER_TLS_CA"] == "/etc/memory3/tls/ca.crt", title
        for path in (value for value in env.values() if value.startswith("/etc/memory3/")):
            mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
            assert path.rpartition("/")[0] in mounts, title


def test_certificates_name_what_callers_dial() -> None:
    objects = chart.render(chart.example("production"))
    names = {component(item): set(item["spec"]["dnsNames"]) for item in of_kind(objects, "Certificate")}
    assert "demo-memory3-memory-headless.prod.svc" in names["memory"]
    assert "demo-memory3-retrieval.prod.svc" in names["retrieval"]
    assert "demo-memory3-decoder.prod.svc" in names["decoder"]


def test_private_authorities_reach_all_who_call_milvus_and_s3() -> None:
    callers = {
        "MEMORY3_MEMORY_STORE_URI": "MEMORY3_MEMORY_S3_CA",
        "MEMORY3_RETRIEVAL_MILVUS_URI": "MEMORY3_RETRIEVAL_MILVUS_CA",
    }
    found: set[tuple[str, str]] = set()
    for _, template in chart.pod_templates(chart.render(chart.example("production") | {"weights": {"source": "s3"}})):
        secrets = {volume["name"]: volume.get("secret", {}) for volume in template["spec"]["volumes"]}
        for container in chart.containers(template):
            told = environment(container)
            mounts = {mount["mountPath"]: secrets.get(mount["name"], {}) for mount in container["volumeMounts"]}
            for address, ca in callers.items():
                assert (ca in told) == (address in told), container["name"]
                if ca in told:
                    assert mounts[told[ca].removesuffix("/ca.crt")]["secretName"] == "company-ca"
                    found.add((container["name"], ca))
    wanted = {("memory", "MEMORY3_MEMORY_S3_CA"), ("retrieval", "MEMORY3_RETRIEVAL_MILVUS_CA")}
    assert wanted | {("weights", "MEMORY3_MEMORY_S3_CA")} <= found
