"""The datasets: their sources and checksums, what is public about them, and how they are split. Records are read here and handed
to the vault; nothing here computes with them."""
