"""Files of examples as streams of records: JSON lines and documents, SQuAD's JSON, CSV and TSV, CoNLL and CoNLL-U,
plain text, Parquet; each may be packed.
"""

from rembert.tasks.reading.formats import READERS, read_records
from rembert.tasks.reading.options import FileOptions
from rembert.tasks.reading.records import BadLine, Location, Record

__all__ = ["READERS", "BadLine", "FileOptions", "Location", "Record", "read_records"]
