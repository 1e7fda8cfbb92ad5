"""What a Prometheus client library reads in the text on standard input: one JSON list of
[family, kind, sample, labels, value] on standard output."""

import json
import math
import sys

from prometheus_client.parser import text_string_to_metric_families

samples = []
for family in text_string_to_metric_families(sys.stdin.read()):
    for sample in family.samples:
        assert math.isfinite(sample.value), sample
        samples.append([family.name, family.type, sample.name, sample.labels, sample.value])
json.dump(samples, sys.stdout)
