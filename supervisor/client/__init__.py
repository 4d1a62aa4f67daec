"""PROCESS 3: what people and tools hold in their hands."""
