# One command of embedmill as a Job. Exit 3 (done, with records in quarantine) is no failure; SIGTERM is passed on, so
# that the command gives its lease back.
embedmill "$@" &
command=$!
trap 'kill -TERM $command' TERM INT
code=0
wait $command || code=$?
while kill -0 $command 2>/dev/null; do # the wait was cut short by a signal
  code=0
  wait $command || code=$?
done
[ $code -ne 3 ] || code=0
exit $code
