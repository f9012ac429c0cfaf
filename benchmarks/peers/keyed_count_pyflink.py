"""The keyed count in PyFlink, thread mode: KeyedCount.java again, in Python on the JVM.

Run by the Python of a virtual environment with apache-flink: RECORDS KEYS PARALLELISM CHECKPOINT_MS
DIRECTORY. State is in RocksDB; prints the seconds that the job took.
"""

import sys
import time
from pathlib import Path

from pyflink.common import Configuration, Types, WatermarkStrategy
from pyflink.datastream import (
    KeyedProcessFunction,
    RuntimeContext,
    StreamExecutionEnvironment,
)
from pyflink.datastream.connectors import Sink
from pyflink.datastream.connectors.number_seq import NumberSequenceSource
from pyflink.datastream.state import ValueStateDescriptor
from pyflink.java_gateway import get_gateway

PAIR = Types.TUPLE([Types.LONG(), Types.LONG()])
WORD = (1 << 64) - 1


class Count(KeyedProcessFunction):
    def open(self, runtime_context: RuntimeContext):
        self.count = runtime_context.get_state(ValueStateDescriptor("count", Types.LONG()))

    def process_element(self, pair, ctx):
        now = (self.count.value() or 0) + pair[1]
        self.count.update(now)
        yield pair[0], now


def main():
    records, keys, parallelism, checkpoint_ms = map(int, sys.argv[1:5])
    directory = Path(sys.argv[5]).absolute()
    settings = Configuration()
    settings.set_string("python.execution-mode", "thread")
    settings.set_string("state.backend.type", "rocksdb")
    settings.set_string("state.backend.rocksdb.localdir", str(directory / "state"))
    settings.set_string("execution.checkpointing.dir", (directory / "checkpoints").as_uri())
    settings.set_string("execution.checkpointing.incremental", "true")
    settings.set_string("taskmanager.memory.managed.size", "1g")
    if checkpoint_ms:
        settings.set_string("execution.checkpointing.interval", f"{checkpoint_ms} ms")
    env = StreamExecutionEnvironment.get_execution_environment(settings)
    env.set_parallelism(parallelism)
    env.set_max_parallelism(128)

    def spread(number):
        mixed = (number * 0x9E3779B97F4A7C15) & WORD
        return (mixed ^ (mixed >> 32)) % keys, 1

    numbers = NumberSequenceSource(0, records - 1)
    discard = get_gateway().jvm.org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink()
    (
        env.from_source(numbers, WatermarkStrategy.no_watermarks(), "numbers", Types.LONG())
        .map(spread, output_type=PAIR)
        .key_by(lambda pair: pair[0], key_type=Types.LONG())
        .process(Count(), output_type=PAIR)
        .sink_to(Sink(discard))
    )
    begun = time.perf_counter()
    env.execute("keyed count")
    print(f"SECONDS {time.perf_counter() - begun:.3f}")


if __name__ == "__main__":
    main()
