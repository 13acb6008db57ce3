# Only for other compiled modules: kafka_client.pxd.
