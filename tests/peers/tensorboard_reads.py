"""TensorBoard's own reader on the event files of a run folder: python tensorboard_reads.py RUN

Prints {tag: [[step, value], ...]} as JSON, and fails where the reader finds nothing.
"""
import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
events.Reload()
tags = events.Tags()["scalars"]
assert tags, "no scalars read"
print(json.dumps({tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in tags}))
