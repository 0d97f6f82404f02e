"""What `deep` shows besides its verdict: whether rivals are resisted, and one fact leads to another."""
