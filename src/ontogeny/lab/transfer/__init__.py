"""What is learned at one checkpoint, tried at another: probes, vectors, averages, and maps onto other models."""
