"""The index in Milvus, server or embedded."""
