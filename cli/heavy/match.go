package heavy

import "regexp"

// Match reports whether expression fits text. One that is none fits nothing.
func Match(expression, text string) bool {
	ok, err := regexp.MatchString(expression, text)
	return ok && err == nil
}
