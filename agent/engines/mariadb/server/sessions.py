"""What every session of ours sets for itself, whatever the app's server sets for sessions and its init_connect did.

The one fact to know: DEFAULT is the server's own setting, so values are written out. Of the session variables of
10.11, 11.8 and MySQL 9.7, these are the ones that leave out rows, give words or definitions another meaning, or end
what takes long. Those that only refuse more, or decide how bytes lie on a disk, stay the server's, and so do the time
zone and what tables are made of when a file does not say it: engine, collation.
"""

from __future__ import annotations

SETTINGS = (
    "SET NAMES utf8mb4, SESSION sql_mode = '', autocommit = 1, completion_type = 'NO_CHAIN',"
    " sql_select_limit = 18446744073709551615, sql_big_selects = 1, sql_safe_updates = 0, sql_quote_show_create = 1,"
    " foreign_key_checks = 1, unique_checks = 1"
    # DEFAULT of this one alone is none: a session may be without one where the server has one.
    " /*M!100304 , system_versioning_asof = DEFAULT, max_statement_time = 0, tx_read_only = 0,"
    " idle_transaction_timeout = 0, idle_readonly_transaction_timeout = 0, idle_write_transaction_timeout = 0 */"
    # With the first, RENAME TABLE leaves out what is not there. Until 10.6, `utf8` had but one meaning.
    " /*M!100601 , sql_if_exists = 0, old_mode = 'UTF8_IS_UTF8MB3' */"
    # Off, a TIMESTAMP gets a default that nobody wrote.
    " /*M!100804 , explicit_defaults_for_timestamp = 1 */ /*M!101100 , system_versioning_insert_history = 0 */"
    " /*!80000 , explicit_defaults_for_timestamp = 1, max_execution_time = 0, transaction_read_only = 0,"
    # Sizes as they are, not as they were a day ago.
    " information_schema_stats_expiry = 0 */"
    " /*!80030 , show_gipk_in_create_table_and_information_schema = 1 */"
)
"""One statement, to which more settings may be added behind a comma. Each server takes what is for the other, or for
later releases, as a comment."""
