"""Moving messages without looking at them: into files, out of them, from one Kafka cluster to another."""
