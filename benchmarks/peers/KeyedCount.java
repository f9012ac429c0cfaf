import java.nio.file.Path;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.util.Collector;

/**
 * The keyed count in Flink: RECORDS numbers, hashed to KEYS keys, shuffled, counted in a ValueState.
 * Prints the seconds that the job took, without the start of the JVM.
 *
 * <p>Arguments: RECORDS KEYS rocksdb|hashmap PARALLELISM CHECKPOINT_MS (0 = none) DIRECTORY
 */
public class KeyedCount {
  public static void main(String[] args) throws Exception {
    long records = Long.parseLong(args[0]);
    long keys = Long.parseLong(args[1]);
    long checkpointMs = Long.parseLong(args[4]);
    Path directory = Path.of(args[5]).toAbsolutePath();

    Configuration settings = new Configuration();
    settings.setString("state.backend.type", args[2]);
    settings.setString("state.backend.rocksdb.localdir", directory.resolve("state").toString());
    settings.setString("execution.checkpointing.dir", directory.resolve("checkpoints").toUri().toString());
    settings.setString("execution.checkpointing.incremental", "true");
    settings.setString("taskmanager.memory.managed.size", "1g");
    if (checkpointMs > 0) {
      settings.setString("execution.checkpointing.interval", checkpointMs + " ms");
    }
    StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment(settings);
    env.setParallelism(Integer.parseInt(args[3]));
    env.setMaxParallelism(128);
    env.getConfig().enableObjectReuse();

    env.fromSequence(0, records - 1)
        .map(i -> Tuple2.of(Long.remainderUnsigned(mixed(i), keys), 1L))
        .returns(Types.TUPLE(Types.LONG, Types.LONG))
        .keyBy(pair -> pair.f0)
        .process(new Count())
        .sinkTo(new DiscardingSink<>());

    long begun = System.nanoTime();
    env.execute("keyed count");
    System.out.printf(java.util.Locale.ROOT, "SECONDS %.3f%n", (System.nanoTime() - begun) / 1e9);
  }

  private static long mixed(long i) {
    long hash = i * 0x9E3779B97F4A7C15L;
    return hash ^ (hash >>> 32);
  }

  private static class Count
      extends KeyedProcessFunction<Long, Tuple2<Long, Long>, Tuple2<Long, Long>> {
    private transient ValueState<Long> count;

    @Override
    public void open(OpenContext context) {
      count = getRuntimeContext().getState(new ValueStateDescriptor<>("count", Types.LONG));
    }

    @Override
    public void processElement(
        Tuple2<Long, Long> pair, Context context, Collector<Tuple2<Long, Long>> out)
        throws Exception {
      Long before = count.value();
      long now = (before == null ? 0 : before) + pair.f1;
      count.update(now);
      out.collect(Tuple2.of(pair.f0, now));
    }
  }
}
