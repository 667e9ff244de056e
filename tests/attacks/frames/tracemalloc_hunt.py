import linecache
import tracemalloc

tracemalloc.start(20)
line = input()
trace = tracemalloc.get_object_traceback(line) or []
print(*[linecache.getline(frame.filename, frame.lineno).strip() for frame in trace] or ["nothing"])
for statistic in tracemalloc.take_snapshot().statistics("traceback")[:10]:
    print(statistic.traceback.format()[-1].strip())
