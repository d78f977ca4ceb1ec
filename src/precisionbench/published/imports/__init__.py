"""Numbers that a user imports from files of MLPerf and timm, and where they are kept."""
