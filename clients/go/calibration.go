package quantd

import "github.com/quantd/quantd/clients/go/quantdv1"

// The functions below build the data that GPTQ, AWQ and AQLM calibrate with. Without any, the server
// uses a small text of its own, and says so. The other fields of the message may be set afterwards.

// CalibrationTexts calibrates with texts sent along.
func CalibrationTexts(texts ...string) *quantdv1.CalibrationConfig {
	return &quantdv1.CalibrationConfig{Data: &quantdv1.CalibrationConfig_Texts{
		Texts: &quantdv1.CalibrationTexts{Texts: texts},
	}}
}

// CalibrationTokens calibrates with sequences of token ids, used as they are.
func CalibrationTokens(sequences ...[]uint32) *quantdv1.CalibrationConfig {
	tokens := &quantdv1.CalibrationTokens{}
	for _, ids := range sequences {
		tokens.Sequences = append(tokens.Sequences, &quantdv1.TokenSequence{Ids: ids})
	}
	return &quantdv1.CalibrationConfig{Data: &quantdv1.CalibrationConfig_Tokens{Tokens: tokens}}
}

// CalibrationFile calibrates with a .txt or .jsonl file of the server: its path or URI.
func CalibrationFile(uri string) *quantdv1.CalibrationConfig {
	return &quantdv1.CalibrationConfig{Data: &quantdv1.CalibrationConfig_File{
		File: &quantdv1.CalibrationFile{Uri: uri},
	}}
}
