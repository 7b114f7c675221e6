"""`/metrics` in the format of Prometheus. What the models have answered is read from them when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from onsight.serving.models import Models

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """What is counted.

    Attributes:
        models: what answers; set once it exists.
    """

    models: Models | None = None

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("onsight_requests", "Requests", ["route", "code"], registry=self.registry)
        self.seconds = Histogram(
            "onsight_request_seconds", "Seconds per request", ["route"], buckets=SECONDS, registry=self.registry
        )
        self.batch = Histogram(
            "onsight_batch_images", "Images per batch", buckets=(1, 2, 4, 8, 16), registry=self.registry
        )
        self.registry.register(self)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """Yield what the models know themselves."""
        if self.models is None:
            return
        queue = GaugeMetricFamily("onsight_queue_images", "Images that wait", labels=["model"])
        images = CounterMetricFamily("onsight_images", "Images that were answered", labels=["model", "class"])
        unsure = CounterMetricFamily("onsight_unsure_images", "Unsure answers", labels=["model", "reason"])
        distance = CounterMetricFamily(
            "onsight_distance", "Sum of the distances from the training images", labels=["model"]
        )
        drift = GaugeMetricFamily(
            "onsight_drift_odds", "Odds against images like the validation images; an alarm from 20", labels=["model"]
        )
        for model in self.models.all.values():
            watch = model.watch
            queue.add_metric([model.name], len(model.pool.waiting))
            for name, count in zip(watch.names, watch.classes, strict=True):
                images.add_metric([model.name, name], count)
            for reason, count in watch.unsure.items():
                unsure.add_metric([model.name, reason], count)
            if model.facts.get("distance_threshold") is not None:
                distance.add_metric([model.name], watch.distances)
            if found := watch.summary()["drift"]:
                drift.add_metric([model.name], found["odds"])
        compared = CounterMetricFamily("onsight_shadow_images", "Images a shadow was asked", labels=["model", "result"])
        for shadow in self.models.shadows:
            for result, count in (
                ("same", shadow.compared - shadow.differ),
                ("differs", shadow.differ),
                ("left_out", shadow.left_out),
            ):
                compared.add_metric([shadow.model.name, result], count)
        yield from (queue, images, unsure, distance, drift, compared)

    def text(self) -> bytes:
        """Return everything in the text format."""
        return generate_latest(self.registry)
