"""What the Trace Event Format asks of a file, so that Perfetto and chrome://tracing show it as it is meant."""

import json
import math

METADATA = {"process_name": ("name", str), "process_sort_index": ("sort_index", int), "thread_name": ("name", str),
            "thread_sort_index": ("sort_index", int)}


def is_time(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def read_trace(text):
    """The spans by track: {(pid, tid): [event, …]} in order of time, with the tracks' names: {(pid, tid): name} and the
    processes' {pid: name}. Asserts the format's rules."""
    refuse = lambda constant: (_ for _ in ()).throw(AssertionError(f"{constant} is no JSON"))
    trace = json.loads(text, parse_constant=refuse)
    assert isinstance(trace, dict) and isinstance(trace["traceEvents"], list)
    assert trace.get("displayTimeUnit", "ms") in ("ms", "ns")
    tracks, threads, processes, seen = {}, {}, {}, set()
    for event in trace["traceEvents"]:
        assert isinstance(event["name"], str) and event["name"], event
        assert type(event["pid"]) is int and type(event["tid"]) is int, event
        if event["ph"] == "M":
            member, kind = METADATA[event["name"]]
            value = event["args"][member]
            assert type(value) is kind and list(event["args"]) == [member], event
            of_process = event["name"].startswith("process")
            key = event["name"], event["pid"], None if of_process else event["tid"]
            assert key not in seen, f"twice: {event}"
            seen.add(key)
            if event["name"] == "process_name":
                processes[event["pid"]] = value
            elif event["name"] == "thread_name":
                threads[event["pid"], event["tid"]] = value
        else:
            assert event["ph"] == "X" and is_time(event["ts"]) and is_time(event["dur"]), event
            tracks.setdefault((event["pid"], event["tid"]), []).append(event)
    numbers = [tid for _, tid in threads]
    # Perfetto merges threads of equal number, and takes 0 for the idle thread and a pid for its process's main thread.
    assert len(set(numbers)) == len(numbers) and not set(numbers) & {0, *processes}, sorted(threads)
    for track, spans in tracks.items():
        assert track in threads and track[0] in processes, f"a track without a name: {track}"
        spans.sort(key=lambda e: (e["ts"], -e["dur"]))
        check_nesting(spans)
    return tracks, threads, processes


def check_nesting(spans):
    """Complete events of one thread lie apart or one inside the other; to a nanosecond, in which the file counts."""
    around = []
    for span in spans:
        end = span["ts"] + span["dur"]
        while around and around[-1] <= span["ts"] + 1e-3:
            around.pop()
        assert not around or end <= around[-1] + 1e-3, f"overlaps the span before it: {span}"
        around.append(end)
