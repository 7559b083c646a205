"""The rating core: records in, rows and output records out. Start with README.md in this folder.

Pure: no Kafka, clock, random number, float, await or logging; it imports the standard library and msgspec only.
"""
