"""What other tools make of rows: their tokens and labels, by the rules that their code follows, written down here."""
