"""pythia_fast.brokers.kafka_partition_names."""

from pythia_fast.brokers.kafka_partition_names import partition_names


def test_partitions_stand_behind_their_topics_in_order() -> None:
    assert partition_names({("payments", 0), ("orders", 10), ("orders", 2)}) == "orders[2, 10], payments[0]"
    assert partition_names([]) == ""
