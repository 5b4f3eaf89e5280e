"""What Prometheus does: ask over HTTP, and read the answer with its own parser."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families
from tests.api.server_process import ServerProcess

METRICS = ("--metrics-listen", "127.0.0.1:0")


def url_of(server: ServerProcess) -> str:
    """Where its log says that metrics are."""
    return str(server.events("serving")[0]["metrics"])


class Scrape:
    """The samples of one scrape."""

    def __init__(self, url: str) -> None:
        with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 - ours
            self.content_type = answer.headers["Content-Type"]
            self.text = answer.read().decode()
        self._samples = [
            sample
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
        ]

    def all(self, name: str, **labels: str) -> list[tuple[Mapping[str, str], float]]:
        """Labels and values of a metric, where the labels include some."""
        return [
            (sample.labels, sample.value)
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def value(self, name: str, **labels: str) -> float:
        """The only value."""
        ((_, value),) = self.all(name, **labels)
        return value
