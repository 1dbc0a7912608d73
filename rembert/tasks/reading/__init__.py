"""Files of examples as streams of records: JSON lines, CSV and TSV, CoNLL and CoNLL-U, SQuAD's JSON, plain text; each
may be compressed with gzip.
"""

from rembert.tasks.reading.formats import READERS, read_records
from rembert.tasks.reading.records import BadLine, Location, Record

__all__ = ["READERS", "BadLine", "Location", "Record", "read_records"]
