// Preloaded into Azurite so that it does not outlive the test run that started it:
// it stops, as on SIGTERM, once whoever holds the other end of standard input is gone.
process.stdin.on("end", () => process.kill(process.pid, "SIGTERM"));
process.stdin.resume();
process.stdin.unref(); // waiting for that must not keep it from ending
