"""The trusted core, and the only room that computes with private records: the vault, its ledger, its noise and its accounting,
clipped gradients, and certificates. It depends on no method; who believes a certificate has read this room."""
