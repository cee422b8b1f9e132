"""Replicas, autoscaling and devices of the Ray Serve application are what the settings say. Ray is not started."""

from __future__ import annotations

import pytest

from services.decoder.app import application
from services.decoder.config import DecoderSettings

pytestmark = pytest.mark.ray


def test_a_fixed_number_of_replicas() -> None:
    deployment = application(DecoderSettings(replicas=3, num_gpus=0.5, num_cpus=2))._bound_deployment
    assert deployment.num_replicas == 3
    assert deployment._deployment_config.autoscaling_config is None
    assert deployment.ray_actor_options == {"num_cpus": 2, "num_gpus": 0.5}


def test_autoscaling() -> None:
    settings = DecoderSettings(autoscaling_min=2, autoscaling_max=5, autoscaling_target=4)
    scale = application(settings)._bound_deployment._deployment_config.autoscaling_config
    assert (scale.min_replicas, scale.max_replicas, scale.target_ongoing_requests) == (2, 5, 4)
