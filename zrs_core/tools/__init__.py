"""Programs around replication: the command line, verification, snapshots and the analyser."""
